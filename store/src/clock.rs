//! The one source of time and of ids. Every time in the database is bound from here, so tests can
//! move it by hand, and every process of an installation can follow the database's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

/// Tells the time, in whole milliseconds UTC. Cheap to clone; clones share the time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// The machine's time plus an offset, in milliseconds, that brings it to the database's.
    System { offset_ms: AtomicI64 },
    /// A time that only moves when a test says so, in milliseconds since 1970.
    #[cfg(feature = "testing")]
    Fake { now_ms: AtomicI64 },
}

impl Clock {
    /// The machine's time.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { offset_ms: AtomicI64::new(0) }))
    }

    /// A clock that stands still at `now` until a test moves it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn fake(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Source::Fake { now_ms: AtomicI64::new(now.timestamp_millis()) }))
    }

    /// The time, cut to milliseconds: PostgreSQL keeps microseconds and SQLite whatever it is
    /// given, so anything finer would not survive a round trip alike.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match &*self.0 {
            Source::System { offset_ms } => {
                machine_time() + TimeDelta::milliseconds(offset_ms.load(Ordering::Relaxed))
            }
            #[cfg(feature = "testing")]
            Source::Fake { now_ms } => {
                DateTime::from_timestamp_millis(now_ms.load(Ordering::SeqCst)).unwrap_or_default()
            }
        }
    }

    /// Follows a reference: from now on `now()` is the machine's time plus `offset`.
    pub fn set_offset(&self, offset: TimeDelta) {
        match &*self.0 {
            Source::System { offset_ms } => offset_ms.store(offset.num_milliseconds(), Ordering::Relaxed),
            #[cfg(feature = "testing")]
            Source::Fake { .. } => {}
        }
    }

    /// How far `now()` is from the machine's own time.
    #[must_use]
    pub fn offset(&self) -> TimeDelta {
        match &*self.0 {
            Source::System { offset_ms } => TimeDelta::milliseconds(offset_ms.load(Ordering::Relaxed)),
            #[cfg(feature = "testing")]
            Source::Fake { .. } => TimeDelta::zero(),
        }
    }

    /// Moves a fake clock forward; a system clock does not move.
    #[cfg(feature = "testing")]
    pub fn advance(&self, by: TimeDelta) {
        if let Source::Fake { now_ms } = &*self.0 {
            now_ms.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
        }
    }

    /// A new id: UUID version 7 of this clock's time, so ids sort by creation.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        let now = self.now();
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        let random: [u8; 10] = rand::random();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// The machine's own time, cut to milliseconds; the only place that asks for it.
#[expect(clippy::disallowed_methods, reason = "this is the clock that everything else must use")]
fn machine_time() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}
