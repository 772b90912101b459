//! Which window a pull reads, and how far the watermark moves when it has.
//!
//! A window is `[watermark − overlap, now − lag)`. The overlap catches records that share the boundary's
//! second; the lag, and the vendor's own clock, keep us from claiming a moment that the vendor has not
//! finished. The watermark moves to the window's end when every page is stored.
//!
//! Page numbers and offsets have one more trap: a record that is changed while a long window is read
//! leaves the window, everything behind it moves up by one, and the record that slips from the next page
//! to the last one is never seen. So a window of several such pages is remembered as a [`Suspect`]. If
//! the next window holds an old record that was changed during that reading, the shift may have
//! happened: the watermark goes back to where the suspect began and it is read once more. That second
//! reading is trusted, so this ends.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::sync_cursors::{self, Advance};
use zhilian_sync_store::{RunId, StoreError, SystemId, Tx};

use super::position::Position;
use crate::context::Context;
use crate::enqueue::PullParameters;
use crate::outcome::JobError;
use crate::vendor::{Stream, Window};

/// Streams of this version have one part.
const PARTITION: &str = "";
/// How far a vendor's `Date` header, which has whole seconds, may lie behind its records' times.
pub(super) const SLACK: TimeDelta = TimeDelta::seconds(2);

/// A window of several numbered pages whose reading may have been shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its start; `None` is the beginning of time.
    from: Option<DateTime<Utc>>,
    /// Its end.
    to: DateTime<Utc>,
    /// When its last page was read.
    read_until: DateTime<Utc>,
}

impl Suspect {
    /// Whether a record was already there when the window began to be read, and changed meanwhile.
    #[must_use]
    pub fn is_shown_by(&self, occurred_at: Option<DateTime<Utc>>, version_at: Option<DateTime<Utc>>) -> bool {
        let old = occurred_at.is_none_or(|at| at < self.to);
        old && version_at.is_some_and(|at| at >= self.to && at <= self.read_until)
    }
}

/// What `sync_cursors.value` holds for a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    /// The window before may have been shifted.
    Suspect(Suspect),
    /// The coming window is the second reading of a suspect.
    Confirming,
}

/// The window of one pull, and what is known about the one before.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) system: SystemId,
    stream: String,
    pub(super) window: Window,
    pub(super) suspect: Option<Suspect>,
    confirming: bool,
    backfill: bool,
    numbered_pages: bool,
}

impl Reading {
    /// Chooses the window: after the watermark, or what a backfill asks for.
    pub(super) async fn begin(
        ctx: &Context,
        system: &ExternalSystem,
        stream: &Stream,
        parameters: &PullParameters,
    ) -> Result<Self, JobError> {
        let now = ctx.clock().now();
        let delta = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let to = now - delta(stream.lag);
        let mut reading = Self {
            system: system.id,
            stream: stream.name.clone(),
            window: Window { from: None, to },
            suspect: None,
            confirming: false,
            backfill: parameters.is_backfill(),
            numbered_pages: stream.has_numbered_pages(),
        };
        if reading.backfill {
            reading.window = Window {
                from: parameters.from,
                to: parameters.to.unwrap_or(to),
            };
            return Ok(reading);
        }
        let cursor = sync_cursors::find(&ctx.store, system.id, &stream.name, PARTITION).await?;
        let watermark = cursor.as_ref().and_then(|cursor| cursor.watermark);
        reading.window.from = match (&cursor, watermark) {
            (_, Some(watermark)) => Some(watermark - delta(stream.overlap)),
            // Confirming a window that began with the beginning of time.
            (Some(_), None) => None,
            (None, None) => Some(now - delta(stream.first_window)),
        };
        match cursor
            .and_then(|cursor| cursor.value)
            .and_then(|text| serde_json::from_str(&text).ok())
        {
            Some(Mark::Suspect(suspect)) => reading.suspect = Some(suspect),
            Some(Mark::Confirming) => reading.confirming = true,
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
            partition: PARTITION,
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
        let (watermark, mark) = if position.shifted {
            let from = self.suspect.and_then(|suspect| suspect.from);
            tracing::info!(
                ?from,
                "a record was changed while the window before was read; it is read once more"
            );
            (from, Some(Mark::Confirming))
        } else if position.pages > 1 && self.numbered_pages && !self.confirming {
            let read_until = position.read_until.unwrap_or(end);
            (
                Some(end),
                Some(Mark::Suspect(Suspect {
                    from: position.window().from,
                    to: end,
                    read_until,
                })),
            )
        } else {
            (Some(end), None)
        };
        let value = mark.and_then(|mark| serde_json::to_string(&mark).ok());
        let to = Advance {
            system_id: self.system,
            stream: &self.stream,
            partition: PARTITION,
            watermark,
            value: value.as_deref(),
            sync_log_id: Some(run),
            force: position.shifted,
        };
        sync_cursors::advance(tx, ctx.clock(), to).await?;
        Ok(())
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
        let suspect = Suspect {
            from: Some(at(0)),
            to: at(100),
            read_until: at(130),
        };
        assert!(
            suspect.is_shown_by(Some(at(50)), Some(at(110))),
            "sold before, changed meanwhile"
        );
        assert!(
            suspect.is_shown_by(None, Some(at(110))),
            "nobody knows when it was sold"
        );
        assert!(
            !suspect.is_shown_by(Some(at(105)), Some(at(110))),
            "new: it was never in the window"
        );
        assert!(
            !suspect.is_shown_by(Some(at(50)), Some(at(131))),
            "changed after the reading"
        );
        assert!(
            !suspect.is_shown_by(Some(at(50)), Some(at(99))),
            "part of the overlap"
        );
        assert!(
            !suspect.is_shown_by(Some(at(50)), None),
            "the vendor tells no versions"
        );
    }
}
