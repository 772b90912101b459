//! Which window a pull reads, and how far the watermark moves when it has.
//!
//! A window is `[watermark − overlap, now − lag)`. The overlap catches records that share the boundary's
//! second; the lag, and the vendor's own clock, keep us from claiming a moment that the vendor has not
//! finished. The watermark moves to the window's end when every page is stored.
//!
//! Page numbers and offsets have one more trap: a record that is changed while a long window is read
//! leaves the window, everything behind it moves up by one, and the record that slips from the next page
//! to the last one is never seen. So a window of several such pages is remembered as a [`Suspect`] until
//! the watermark has passed the time of its reading. If a window meanwhile holds an old record that has
//! changed since, the shift may have happened: the watermark goes back to where the suspect
//! began and everything since is read once more. A long reading that is shifted again is repeated again,
//! [`ROUNDS_MAX`] times. Lists of single days are no suspects: a day is read again until it is
//! over, and `reread_days` longer.
//!
//! A stream that is read once for each of something has a watermark for each of its parts, so a shop that
//! was not there at the last pull is read from its beginning.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::sync_cursors::{self, Advance};
use zhilian_sync_store::{RunId, StoreError, SystemId, Tx};

use super::position::Position;
use crate::context::Context;
use crate::enqueue::PullParameters;
use crate::outcome::JobError;
use crate::vendor::{Connection, Partition, Stream, Window};

/// How far a vendor's `Date` header, which has whole seconds, may lie behind its records' times.
pub(super) const SLACK: TimeDelta = TimeDelta::seconds(2);

/// How often the same past is read again because its reading was shifted. Each round is as long as the
/// first, so a vendor whose old records change all the time would never be left in peace.
const ROUNDS_MAX: u32 = 5;

/// Windows of several numbered pages whose reading may have been shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Where the first of them began; `None` is the beginning of time.
    from: Option<DateTime<Utc>>,
    /// Where the first of them ended.
    to: DateTime<Utc>,
    /// Where the last of them ended: what took place before is old.
    old_before: DateTime<Utc>,
    /// When the last page of them was read.
    read_until: DateTime<Utc>,
    /// How often this past was read again already.
    rounds: u32,
}

impl Suspect {
    /// Whether a record was already there when a window began to be read, and may have changed
    /// meanwhile: one that changed later may have changed before that too.
    #[must_use]
    pub fn is_shown_by(&self, occurred_at: Option<DateTime<Utc>>, version_at: Option<DateTime<Utc>>) -> bool {
        let old = occurred_at.is_none_or(|at| at < self.old_before);
        old && version_at.is_some_and(|at| at >= self.to)
    }

    /// Both as one: whatever shows either shows this.
    fn and(self, later: Self) -> Self {
        Self {
            from: self.from,
            to: self.to.min(later.to),
            old_before: self.old_before.max(later.old_before),
            read_until: self.read_until.max(later.read_until),
            rounds: self.rounds.max(later.rounds),
        }
    }
}

/// What `sync_cursors.value` holds for a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    /// A window before may have been shifted.
    Suspect(Suspect),
    /// The coming window reads a suspect again, for the so-manieth time.
    Confirming { rounds: u32 },
    /// The greatest version that was read, of a stream that is read by versions.
    Version(u64),
}

/// The window of one pull, and what is known about the one before.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) system: SystemId,
    stream: String,
    partition: String,
    pub(super) window: Window,
    pub(super) suspect: Option<Suspect>,
    /// The greatest version that was read before, of a stream that is read by versions.
    pub(super) version: Option<u64>,
    rounds: u32,
    backfill: bool,
    /// Whether its pages may shift unseen.
    numbered_pages: bool,
    /// The most pages of one sequence.
    pub(super) pages_max: u32,
}

impl Reading {
    /// Chooses the window of a part: after its watermark, or what a backfill asks for.
    pub(super) async fn begin(
        ctx: &Context,
        system: &ExternalSystem,
        connection: &Connection,
        stream: &Stream,
        partition: &Partition,
        parameters: &PullParameters,
    ) -> Result<Self, JobError> {
        let now = ctx.clock().now();
        let delta = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let to = now - delta(stream.lag);
        let mut reading = Self {
            system: system.id,
            stream: stream.name.clone(),
            partition: partition.key.clone(),
            window: Window { from: None, to },
            suspect: None,
            version: None,
            rounds: 0,
            backfill: parameters.is_backfill(),
            numbered_pages: stream.has_numbered_pages() && !stream.is_read_by_days(),
            pages_max: ctx.vendors.pages_max(stream),
        };
        if reading.backfill && stream.is_read_by_versions() {
            let message = format!(
                "`{}` is read from change to change and has no times; start the run without `from` and `to`, or with \
                 `everything`",
                stream.name
            );
            return Err(JobError::give_up("no_window", message));
        }
        // What its first window would have been, so everything that it can ever have read.
        let beginning = system.created_at - delta(stream.first_window);
        if reading.backfill {
            // Days are counted from somewhere.
            let from = parameters.from.or_else(|| stream.is_read_by_days().then_some(beginning));
            reading.window = Window { from, to: parameters.to.unwrap_or(to) };
            return Ok(reading);
        }
        if parameters.anew {
            // The watermark is passed only when this is done: until then the next normal pull begins where it
            // would have.
            reading.window.from = Some(beginning);
            return Ok(reading);
        }
        let cursor = sync_cursors::find(&ctx.store, system.id, &stream.name, &reading.partition).await?;
        let watermark = cursor.as_ref().and_then(|cursor| cursor.watermark);
        reading.window.from = match (&cursor, watermark) {
            (_, Some(watermark)) => Some(connection.reread_from(stream, watermark - delta(stream.overlap))),
            // Confirming a window that began with the beginning of time.
            (Some(_), None) => None,
            (None, None) => Some(now - delta(stream.first_window)),
        };
        match cursor.and_then(|cursor| cursor.value).and_then(|text| serde_json::from_str(&text).ok()) {
            Some(Mark::Suspect(suspect)) => reading.suspect = Some(suspect),
            Some(Mark::Confirming { rounds }) => reading.rounds = rounds,
            Some(Mark::Version(version)) => {
                reading.version = Some(version).filter(|_| stream.is_read_by_versions());
            }
            None => {}
        }
        Ok(reading)
    }

    /// Moves the watermark page by page, where the manifest declares that records come in the order of
    /// their versions. Never for numbered pages: a shift would have to go back further than this.
    pub(super) async fn creep(
        &self,
        tx: &mut Tx,
        ctx: &Context,
        latest: Option<DateTime<Utc>>,
        run: RunId,
    ) -> Result<(), StoreError> {
        if self.backfill || self.numbered_pages || latest.is_none() {
            return Ok(());
        }
        let to = Advance {
            system_id: self.system,
            stream: &self.stream,
            partition: &self.partition,
            watermark: latest.map(|at| at.min(self.window.to)),
            value: None,
            sync_log_id: Some(run),
            force: false,
        };
        sync_cursors::advance(tx, ctx.clock(), to).await?;
        Ok(())
    }

    /// Moves the watermark, in the transaction of the last page.
    pub(super) async fn finish(
        &self,
        tx: &mut Tx,
        ctx: &Context,
        position: &Position,
        run: RunId,
    ) -> Result<(), StoreError> {
        if self.backfill {
            return Ok(());
        }
        let end = position.vendor_to.unwrap_or(self.window.to);
        let shown = self.suspect.filter(|_| position.shifted);
        let (watermark, mark) = match shown {
            Some(suspect) if suspect.rounds < ROUNDS_MAX => {
                tracing::info!(from = ?suspect.from, "a record was changed while a long window was read; reading it again");
                (suspect.from, Some(Mark::Confirming { rounds: suspect.rounds + 1 }))
            }
            _ => {
                let version = position.version.map(Mark::Version);
                (Some(end), version.or_else(|| self.suspects(position, end).map(Mark::Suspect)))
            }
        };
        if shown.is_some() && watermark == Some(end) {
            tracing::warn!(
                rounds = ROUNDS_MAX,
                "records keep changing while the same past is read; it is not read again, a backfill at a quiet hour is advised"
            );
        }
        let force = watermark != Some(end);
        let value = mark.and_then(|mark| serde_json::to_string(&mark).ok());
        let to = Advance {
            system_id: self.system,
            stream: &self.stream,
            partition: &self.partition,
            watermark,
            value: value.as_deref(),
            sync_log_id: Some(run),
            force,
        };
        sync_cursors::advance(tx, ctx.clock(), to).await?;
        Ok(())
    }

    /// What may have been shifted and is not cleared yet: this window, and those before it until the
    /// watermark has passed the time of their reading.
    fn suspects(&self, position: &Position, end: DateTime<Utc>) -> Option<Suspect> {
        let this = (position.pages > 1 && self.numbered_pages).then(|| Suspect {
            from: position.window().from,
            to: end,
            old_before: end,
            read_until: position.read_until.unwrap_or(end),
            rounds: self.rounds,
        });
        let before = self.suspect.filter(|suspect| !position.shifted && suspect.read_until >= end);
        match (before, this) {
            (Some(before), Some(this)) => Some(before.and(this)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    #[test]
    fn only_an_old_record_changed_during_the_reading_shows_a_shift() {
        let suspect =
            Suspect { from: Some(at(0)), to: at(100), old_before: at(100), read_until: at(130), rounds: 0 };
        assert!(suspect.is_shown_by(Some(at(50)), Some(at(110))), "sold before, changed meanwhile");
        assert!(suspect.is_shown_by(None, Some(at(110))), "nobody knows when it was sold");
        assert!(!suspect.is_shown_by(Some(at(105)), Some(at(110))), "new: it was never in the window");
        assert!(suspect.is_shown_by(Some(at(50)), Some(at(131))), "changed later, and perhaps meanwhile too");
        assert!(!suspect.is_shown_by(Some(at(50)), Some(at(99))), "part of the overlap");
        assert!(!suspect.is_shown_by(Some(at(50)), None), "the vendor tells no versions");
    }

    #[test]
    fn two_suspects_are_shown_by_whatever_shows_one() {
        let one = Suspect { from: None, to: at(100), old_before: at(100), read_until: at(130), rounds: 1 };
        let two =
            Suspect { from: Some(at(60)), to: at(120), old_before: at(120), read_until: at(150), rounds: 0 };
        let both = one.and(two);
        assert_eq!((both.from, both.rounds), (None, 1));
        assert!(both.is_shown_by(Some(at(50)), Some(at(110))));
        assert!(both.is_shown_by(Some(at(110)), Some(at(145))));
    }
}
