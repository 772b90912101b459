//! Ids as types of their own, so that a run's id cannot be given where a system's is meant.

use uuid::Uuid;

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
    /// A row of `webhook_events`: one delivered event.
    EventId
}
