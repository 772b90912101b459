//! Ids as types of their own, so that a run's id cannot be given where a system's is meant. Of version 7, they
//! sort by the time at which they were made.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// How far an id's time may be from the times of its row, which are taken a little earlier or later, and by
/// another machine's clock.
const TIME_SLACK: TimeDelta = TimeDelta::days(1);

/// An id greater than those of all rows that were made before a time: what is looked for among old rows is
/// found by the primary key, without a look at the young ones.
pub(crate) fn beyond(time: DateTime<Utc>) -> Uuid {
    first_at(time.checked_add_signed(TIME_SLACK).unwrap_or(time))
}

/// An id smaller than those of all rows that were made at a time or later.
pub(crate) fn short_of(time: DateTime<Utc>) -> Uuid {
    first_at(time.checked_sub_signed(TIME_SLACK).unwrap_or(time))
}

fn first_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

macro_rules! id {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, sqlx::Type,
        )]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// A row of `external_systems`.
    SystemId
}
id! {
    /// A row of `sync_logs`: one run.
    RunId
}
id! {
    /// A row of `users`.
    UserId
}
id! {
    /// A row of `sessions`.
    SessionId
}
id! {
    /// A row of `api_tokens`.
    TokenId
}
id! {
    /// A row of `webhook_events`: one delivered event.
    EventId
}
