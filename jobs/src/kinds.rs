//! The kinds of job, one file each, and the one match that runs them. To add a kind, add a variant:
//! the compiler names every arm that is missing. There is no registration to forget.

use zhilian_sync_store::{Lane, Trigger};

use crate::context::Context;
use crate::outcome::JobError;
use crate::settings::EngineSettings;
use crate::worker::{Attempt, Done};

mod apply_webhooks;
pub mod connection_test;
pub mod pull;
pub mod push_member;
mod replay_webhooks;
mod retry_failures;
mod storing;
mod upkeep;

/// A kind of job; its text is stored and stable forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Asks a vendor who we are.
    ConnectionTest,
    /// Reads a window of a stream.
    Pull,
    /// Tells a vendor of a member.
    PushMember,
    /// What the webhooks of a minute did: a log and no job, so nobody claims it.
    ApplyWebhooks,
    /// Applies webhook events once more.
    ReplayWebhooks,
    /// Maps records that failed once more.
    RetryFailures,
    /// Deletes what is old.
    Upkeep,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::ConnectionTest,
        Self::Pull,
        Self::PushMember,
        Self::ApplyWebhooks,
        Self::ReplayWebhooks,
        Self::RetryFailures,
        Self::Upkeep,
    ];

    /// The stored text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionTest => "connection_test",
            Self::Pull => "pull",
            Self::PushMember => "push_member",
            Self::ApplyWebhooks => "apply_webhooks",
            Self::ReplayWebhooks => "replay_webhooks",
            Self::RetryFailures => "retry_failures",
            Self::Upkeep => "upkeep",
        }
    }

    /// The kind with this stored text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Which workers take it: a person's wish goes before the schedule's.
    #[must_use]
    pub const fn lane(self, trigger: Trigger) -> Lane {
        match (self, trigger) {
            (Self::ConnectionTest | Self::ReplayWebhooks | Self::RetryFailures, _)
            | (Self::Pull | Self::PushMember, Trigger::Manual) => Lane::Interactive,
            (Self::ApplyWebhooks, _) => Lane::Hooks,
            (Self::Pull | Self::PushMember, _) => Lane::Syncs,
            (Self::Upkeep, _) => Lane::Upkeep,
        }
    }

    /// How often it is tried. A person who waits for a test wants the first answer, not the fifth.
    #[must_use]
    pub fn max_attempts(self, settings: &EngineSettings) -> i64 {
        match self {
            Self::ConnectionTest | Self::ApplyWebhooks => 1,
            Self::Pull | Self::PushMember | Self::ReplayWebhooks | Self::RetryFailures | Self::Upkeep => {
                i64::from(settings.max_attempts.max(1))
            }
        }
    }

    /// Whether its outcome says something about its system's health: it has asked the vendor. A push has too,
    /// but one member that the vendor does not take says nothing of the others.
    #[must_use]
    pub const fn asks_the_vendor(self) -> bool {
        matches!(self, Self::ConnectionTest | Self::Pull)
    }

    /// Whether its success makes an inactive system active.
    #[must_use]
    pub const fn activates(self) -> bool {
        matches!(self, Self::ConnectionTest)
    }
}

/// Runs one attempt.
pub(crate) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let Some(kind) = Kind::parse(&attempt.run.kind) else {
        return Err(JobError::give_up(
            "unknown_kind",
            format!("this version does not know jobs of kind `{}`; a newer one made it", attempt.run.kind),
        ));
    };
    match kind {
        Kind::ConnectionTest => connection_test::run(ctx, attempt).await,
        // On the heap: it is by far the largest, and every kind's future would be as large.
        Kind::Pull => Box::pin(pull::run(ctx, attempt)).await,
        Kind::PushMember => push_member::run(ctx, attempt).await,
        Kind::ApplyWebhooks => apply_webhooks::run(attempt),
        Kind::ReplayWebhooks => replay_webhooks::run(ctx, attempt).await,
        Kind::RetryFailures => retry_failures::run(ctx, attempt).await,
        Kind::Upkeep => upkeep::run(ctx, attempt).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_texts_never_change() {
        let texts: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(
            texts,
            [
                "connection_test",
                "pull",
                "push_member",
                "apply_webhooks",
                "replay_webhooks",
                "retry_failures",
                "upkeep"
            ]
        );
        assert!(Kind::ALL.iter().all(|kind| Kind::parse(kind.as_str()) == Some(*kind)));
    }

    #[test]
    fn a_person_does_not_queue_behind_the_schedule() {
        assert_eq!(Kind::Pull.lane(Trigger::Manual), Lane::Interactive);
        assert_eq!(Kind::Pull.lane(Trigger::Schedule), Lane::Syncs);
        assert_eq!(Kind::PushMember.lane(Trigger::Push), Lane::Syncs);
        assert_eq!(Kind::PushMember.lane(Trigger::Manual), Lane::Interactive);
        assert_eq!(Kind::ConnectionTest.lane(Trigger::Manual), Lane::Interactive);
        assert_eq!(Kind::ReplayWebhooks.lane(Trigger::Manual), Lane::Interactive);
        assert_eq!(Kind::RetryFailures.lane(Trigger::Manual), Lane::Interactive);
    }
}
