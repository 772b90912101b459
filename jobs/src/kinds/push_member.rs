//! `push_member`: tells a vendor of a member as its row is at that moment.
//!
//! The row says whether there is something to tell (`pending`); a push of what the vendor has told itself
//! meanwhile, or of what another run has pushed, does nothing. What was changed while it was under way stays
//! pending and is pushed once more, because whoever changed it asked for that. A worker that dies between the
//! vendor's answer and our row leaves the row pending: the member is told again, never forgotten.
//!
//! Whoever writes both a member and its run takes the member first, as clients do who change a member and
//! then ask for its push; otherwise the two could wait for each other.
//!
//! While its system is paused a push waits; one that a person asks for goes out all the same.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;
use zhilian_sync_store::member_syncs::{self, MemberSync, Pushed};
use zhilian_sync_store::sync_logs::{self, Counts, Run};
use zhilian_sync_store::{Lane, StoreError, SyncStatus, Trigger, Tx, money};

use crate::context::Context;
use crate::enqueue::PushParameters;
use crate::kinds::Kind;
use crate::outcome::{Action, JobError};
use crate::worker::{Attempt, Done};

/// A push of a paused system looks again so often; resuming it hurries them all.
const PAUSED_WAIT: Duration = Duration::from_mins(10);
const DONE: Done = Done { status: SyncStatus::Success };

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let system = super::pull::system_of(ctx, attempt).await?;
    // A run that a person has hurried is in another lane.
    if system.paused && attempt.run.trigger == Trigger::Push && attempt.run.lane != Lane::Interactive {
        let message = format!("`{}` is paused; the member is pushed when it is resumed", system.name);
        return Err(JobError::new(Action::Hold(PAUSED_WAIT), "system_paused", message));
    }
    let id = member_of(&attempt.run)
        .ok_or_else(|| JobError::give_up("no_member", "the run names no member; it cannot be carried out"))?;
    let member = member_syncs::get(&ctx.store, id).await?;
    if member.deleted_at.is_some() || member.sync_status == SyncStatus::Success {
        return Ok(DONE);
    }
    let connection = ctx.connect(&system)?;
    let answer = attempt.interruptible(connection.push_member(&shown(&member))).await?;
    let mut tx = ctx.store.begin().await?;
    member_syncs::lock(&mut tx, id).await?;
    attempt.fence(&mut tx).await?;
    let pushed = Pushed { id, content_hash: &member.content_hash };
    let name = answer.external_id.as_deref();
    let in_step = member_syncs::finish_push(&mut tx, pushed, name, ctx.clock().now()).await?;
    let counts = Counts { total: 1, success: 1, ..Counts::default() };
    let (asked, answered) = (answer.request_sample.to_string(), answer.response_sample.to_string());
    let claim = attempt.run.claim();
    sync_logs::progress(&mut tx, claim, None, counts, Some(&asked), Some(&answered)).await?;
    tx.commit().await?;
    tracing::debug!(member.id = %id, member.in_step = in_step, "the vendor has the member");
    Ok(DONE)
}

/// Which member a run tells the vendor of; nothing where it is no push.
#[must_use]
pub fn member_of(run: &Run) -> Option<Uuid> {
    if Kind::parse(&run.kind) != Some(Kind::PushMember) {
        return None;
    }
    let parameters: PushParameters = serde_json::from_str(run.parameters.as_deref()?).ok()?;
    Some(parameters.member)
}

/// Takes the member of a push, before the run itself is written.
pub async fn lock(tx: &mut Tx, run: &Run) -> Result<(), StoreError> {
    match member_of(run) {
        Some(id) => member_syncs::lock(tx, id).await,
        None => Ok(()),
    }
}

/// Writes on the member that its push ended without success and is not tried again, in the transaction that
/// ends the run.
pub async fn failed(tx: &mut Tx, run: &Run) -> Result<(), StoreError> {
    let Some(id) = member_of(run) else { return Ok(()) };
    member_syncs::fail_push(tx, id, run.error_message.as_deref().unwrap_or("the push failed")).await
}

/// What a manifest may send of a member: `{member.<name>}`. What is not known is not there.
fn shown(member: &MemberSync) -> Value {
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let members = [
        ("member_id", Some(Value::from(member.member_id.as_str()))),
        ("external_id", text(&member.external_member_id)),
        ("store_id", text(&member.store_id)),
        ("phone", text(&member.phone)),
        ("name", text(&member.name)),
        ("email", text(&member.email)),
        ("level", text(&member.level)),
        ("points", Some(Value::from(member.points))),
        ("balance", Some(Value::Number(money::json_number(member.balance, member.currency.digits())))),
        ("balance_minor", Some(Value::from(member.balance))),
        ("currency", Some(Value::from(member.currency.as_str()))),
    ];
    let known = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(known.collect::<Map<_, _>>())
}
