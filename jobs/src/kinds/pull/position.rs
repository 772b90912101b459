//! How far a pull has come: in which part of its stream, on which day of the window, at which page. Kept
//! on the run, in the transaction of every page, so that whoever claims the run next goes on from there.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use zhilian_sync_store::sync_logs::{Counts, Run};

use super::watermark::Reading;
use crate::vendor::{CursorGuard, Page, PageToken, Stream, Window, WindowDays};

/// A place within a window of a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Position {
    /// The part of the stream, by its id; empty where it has one part.
    #[serde(default)]
    partition: String,
    /// The window's start; `None` is the beginning of time.
    from: Option<DateTime<Utc>>,
    /// The window's end.
    to: DateTime<Utc>,
    /// The day, where the window is read day by day.
    #[serde(default)]
    pub(super) day: Option<NaiveDate>,
    /// The end by the vendor's own clock as of the first page: what the watermark may move to.
    pub(super) vendor_to: Option<DateTime<Utc>>,
    /// When the last page was asked for, by the vendor's clock where it tells.
    pub(super) read_until: Option<DateTime<Utc>>,
    /// Whether a record was seen that was changed while the window before was read.
    pub(super) shifted: bool,
    /// The greatest version that was read, of a stream that is read by versions: where the next pull begins.
    #[serde(default)]
    pub(super) version: Option<u64>,
    /// The next page; `None` is the first.
    pub(super) next: Option<PageToken>,
    /// Every page of the part is stored.
    pub(super) done: bool,
    /// Pages seen of the part.
    pub(super) pages: u32,
    /// Notices when the vendor sends us in circles, within one sequence of pages.
    pub(super) guard: CursorGuard,
    /// The run's counts when the part was begun: its share of failed records is its own.
    #[serde(default)]
    pub(super) part_began: Counts,
    /// The run's counts when the sequence of pages was begun, to which a stale one goes back.
    #[serde(default)]
    sequence_began: Counts,
    /// Whether too many records of any part failed.
    #[serde(default)]
    pub(super) spoilt: bool,
    /// When the last page was fetched: page tokens go stale.
    fetched_at: DateTime<Utc>,
}

impl Position {
    /// The place that the run has come to, if it has come anywhere.
    pub(super) fn kept(run: &Run) -> Option<Self> {
        run.position.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }

    /// The beginning of a part; `counts` are the run's so far.
    pub(super) fn start(
        now: DateTime<Utc>,
        partition: &str,
        reading: &Reading,
        first_day: Option<NaiveDate>,
        counts: Counts,
    ) -> Self {
        Self {
            partition: partition.to_owned(),
            from: reading.window.from,
            to: reading.window.to,
            day: first_day,
            vendor_to: None,
            read_until: None,
            shifted: false,
            version: reading.version,
            next: reading.version.map(PageToken::Version),
            done: false,
            pages: 0,
            guard: CursorGuard::new(reading.pages_max),
            part_began: counts,
            sequence_began: counts,
            spoilt: false,
            fetched_at: now,
        }
    }

    /// Whether this part was read already: parts come in the order of their ids.
    pub(super) fn is_past(&self, partition: &str) -> bool {
        partition < self.partition.as_str() || self.done && partition == self.partition
    }

    /// The part of the stream, by its id.
    pub(super) fn partition(&self) -> &str {
        &self.partition
    }

    /// Whether it lies in this part.
    pub(super) fn is_in(&self, partition: &str) -> bool {
        self.partition == partition
    }

    /// Whether the token of its page may still be used, and the manifest still reads days where it did.
    pub(super) fn is_fresh(&self, now: DateTime<Utc>, stream: &Stream) -> bool {
        let ttl = TimeDelta::from_std(stream.position_ttl).unwrap_or(TimeDelta::MAX);
        // A version is the vendor's own count, which does not go stale.
        let lasts = matches!(self.next, Some(PageToken::Version(_))) && stream.is_read_by_versions();
        self.done || lasts || self.day.is_some() == stream.is_read_by_days() && self.fetched_at + ttl > now
    }

    /// The first page again, and the counts as they were before it: of the day, where there are days, else
    /// of a window that is chosen anew, which is `fresh`.
    pub(super) fn restarted(self, fresh: Self) -> (Self, Counts) {
        if self.day.is_none() || fresh.day.is_none() {
            let counts = self.part_began;
            return (
                Self { spoilt: self.spoilt, part_began: counts, sequence_began: counts, ..fresh },
                counts,
            );
        }
        let counts = self.sequence_began;
        (Self { next: None, guard: fresh.guard, fetched_at: fresh.fetched_at, ..self }, counts)
    }

    /// The window it is in.
    pub(super) const fn window(&self) -> Window {
        Window { from: self.from, to: self.to }
    }

    /// Notes a page that was fetched and is about to be written.
    pub(super) fn saw(&mut self, page: &Page, stream: &Stream) {
        let lag = TimeDelta::from_std(stream.lag).unwrap_or(TimeDelta::zero());
        if self.pages == 0 {
            // Our clock may run ahead of the vendor's: then its own time, not ours, ends the window.
            let by_vendor = page.vendor_time.map_or(self.to, |theirs| theirs - lag);
            self.vendor_to = Some(self.to.min(by_vendor));
        }
        self.pages += 1;
        self.version = self.version.max(page.version);
        self.fetched_at = page.asked_at;
        self.read_until = Some(page.vendor_time.unwrap_or(page.asked_at) + lag + super::watermark::SLACK);
    }

    /// Goes to the first page of the next day; false where there is none.
    pub(super) fn turn_the_day(&mut self, days: Option<WindowDays>, pages_max: u32) -> bool {
        let next = self.day.zip(days).and_then(|(day, days)| days.after(day));
        if next.is_some() {
            self.day = next;
            self.next = None;
            self.guard = CursorGuard::new(pages_max);
        }
        next.is_some()
    }

    /// Notes the run's counts after a page; at the first page of a sequence those are what it began with.
    pub(super) fn counted(&mut self, counts: Counts) {
        if self.next.is_none() {
            self.sequence_began = counts;
        }
    }

    /// As it is kept on the run.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
