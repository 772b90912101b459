//! How far a pull has come within its window: kept on the run, in the transaction of every page, so
//! that whoever claims the run next goes on from there.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use zhilian_sync_store::sync_logs::{Counts, Run};

use super::watermark::Reading;
use crate::context::Context;
use crate::vendor::{CursorGuard, Page, PageToken, Stream, Window};

/// A place within a window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Position {
    /// The window's start; `None` is the beginning of time.
    from: Option<DateTime<Utc>>,
    /// The window's end.
    to: DateTime<Utc>,
    /// The end by the vendor's own clock as of the first page: what the watermark may move to.
    pub(super) vendor_to: Option<DateTime<Utc>>,
    /// When the last page was asked for, by the vendor's clock where it tells.
    pub(super) read_until: Option<DateTime<Utc>>,
    /// Whether a record was seen that was changed while the window before was read.
    pub(super) shifted: bool,
    /// The next page; `None` is the first.
    pub(super) next: Option<PageToken>,
    /// Every page is stored.
    pub(super) done: bool,
    /// Pages seen.
    pub(super) pages: u32,
    /// Notices when the vendor sends us in circles.
    pub(super) guard: CursorGuard,
    /// When the last page was fetched: page tokens go stale.
    fetched_at: DateTime<Utc>,
}

impl Position {
    /// The run's own position while it is fresh, with its counts; otherwise the start of the window with
    /// none.
    pub(super) fn resume(ctx: &Context, run: &Run, stream: &Stream, reading: &Reading) -> (Self, Counts) {
        let now = ctx.clock().now();
        let ttl = TimeDelta::from_std(stream.position_ttl).unwrap_or(TimeDelta::MAX);
        let kept = run
            .position
            .as_deref()
            .and_then(|text| serde_json::from_str::<Self>(text).ok())
            .filter(|position| position.done || position.fetched_at + ttl > now);
        match kept {
            Some(position) => {
                tracing::info!(page = position.pages, "going on from the last committed page");
                let counts = run.counts();
                (position, counts)
            }
            None => (Self::start(now, reading, ctx.vendors.pages_max(stream)), Counts::default()),
        }
    }

    fn start(now: DateTime<Utc>, reading: &Reading, pages_max: u32) -> Self {
        Self {
            from: reading.window.from,
            to: reading.window.to,
            vendor_to: None,
            read_until: None,
            shifted: false,
            next: None,
            done: false,
            pages: 0,
            guard: CursorGuard::new(pages_max),
            fetched_at: now,
        }
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
        self.fetched_at = page.asked_at;
        self.read_until = Some(page.vendor_time.unwrap_or(page.asked_at) + lag + super::watermark::SLACK);
    }

    /// As it is kept on the run.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
