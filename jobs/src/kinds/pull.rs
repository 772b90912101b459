//! `pull`: reads a window of a vendor's stream, part by part, day by day, page by page, into our tables.
//! Most streams have one part and no days.
//!
//! A page is one transaction: fence, records, failures, position, counts. So a crash resumes at the last
//! committed page and the counts are those of what is stored. The next page is fetched while this one is
//! written. The watermark of a part moves in the transaction of its last page, never before; see
//! [`watermark`].

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::runtime::{Handle, RuntimeFlavor};
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::sync_failures::{self, Failing, FailureStage, NewFailure};
use zhilian_sync_store::sync_logs::{self, Counts};
use zhilian_sync_store::{MemberConflict, SyncStatus};

use super::storing;
use crate::context::Context;
use crate::enqueue::PullParameters;
use crate::outcome::{Action, JobError};
use crate::vendor::{Connection, Mapped, Page, PageRequest, Partition, RecordFailure, Stream, WindowDays};
use crate::worker::{Attempt, Done};

mod notes;
mod position;
pub mod watermark;

use notes::Notes;
use position::Position;
use watermark::Reading;

/// Fewer records than this say nothing about the share that failed.
const SHARE_RECORDS_MIN: i64 = 10;
/// Mapping so many records takes about a millisecond.
const LIGHT_RECORDS_MAX: usize = 100;
/// Live clients hear of a pull's progress no more often.
const TELL_EVERY: TimeDelta = TimeDelta::seconds(5);

/// The system of a run; a deleted one ends it.
pub(super) async fn system_of(ctx: &Context, attempt: &Attempt) -> Result<ExternalSystem, JobError> {
    let id = attempt
        .run
        .system_id
        .ok_or_else(|| JobError::give_up("no_system", "the run names no system; it cannot be carried out"))?;
    external_systems::find(&ctx.store, id).await?.ok_or_else(|| {
        JobError::give_up("system_deleted", "the system was deleted; nothing is read any more")
    })
}

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let system = system_of(ctx, attempt).await?;
    let connection = ctx.connect(&system)?;
    let stream = connection.manifest().stream(&attempt.run.sync_type).ok_or_else(|| {
        JobError::give_up(
            "no_such_stream",
            format!("the manifest of `{}` has no stream `{}`", system.provider, attempt.run.sync_type),
        )
    })?;
    let parameters: PullParameters = attempt
        .run
        .parameters
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let partitions = attempt.interruptible(connection.partitions(stream)).await?;
    let kept = Position::kept(&attempt.run);
    let counts = if kept.is_some() { attempt.run.counts() } else { Counts::default() };
    let told_at = ctx.clock().now();
    let notes = Notes::resume(&attempt.run, kept.as_ref().map_or(0, |place| place.pages));
    let mut reached = Reached { place: kept, counts, notes, told_at };
    let stores = system.stores();
    for (at, partition) in partitions.iter().enumerate() {
        if reached.place.as_ref().is_some_and(|place| place.is_past(&partition.key)) {
            continue;
        }
        let reading = Reading::begin(ctx, &system, &connection, stream, partition, &parameters).await?;
        let now = ctx.clock().now();
        let first_day = connection.days(stream, reading.window).map(|days| days.first);
        let fresh = Position::start(now, &partition.key, &reading, first_day, reached.counts);
        let (position, counts) = reached.enter(fresh, stream, now);
        let mut pull = Pull {
            ctx,
            attempt,
            connection: &connection,
            stream,
            partition,
            others_follow: at + 1 < partitions.len(),
            days: connection.days(stream, position.window()),
            reading,
            stores: &stores,
            member_conflict: system.member_conflict,
            position,
            counts,
            notes: reached.notes,
            told_at: reached.told_at,
            telling: false,
        };
        pull.read_to_the_end().await?;
        let Pull { position, counts, notes, told_at, .. } = pull;
        reached = Reached { place: Some(position), counts, notes, told_at };
    }
    verdict(&reached)
}

/// How far the run has come, from part to part.
struct Reached {
    place: Option<Position>,
    counts: Counts,
    notes: Notes,
    told_at: DateTime<Utc>,
}

impl Reached {
    /// Where the reading of a part begins: where the run has come to in it, else at its first page.
    fn enter(&mut self, mut fresh: Position, stream: &Stream, now: DateTime<Utc>) -> (Position, Counts) {
        match self.place.take() {
            None => (fresh, self.counts),
            Some(place) if !place.is_in(fresh.partition()) => {
                fresh.spoilt = place.spoilt;
                (fresh, self.counts)
            }
            Some(place) if place.is_fresh(now, stream) => {
                tracing::info!(page = place.pages, "going on from the last committed page");
                (place, self.counts)
            }
            Some(place) => place.restarted(fresh),
        }
    }
}

/// One attempt at a window of one part of a stream.
struct Pull<'a> {
    ctx: &'a Context,
    attempt: &'a Attempt,
    connection: &'a Connection,
    stream: &'a Stream,
    partition: &'a Partition,
    /// Whether the run is not over with this part.
    others_follow: bool,
    /// The days of the window, where each is a list of its own.
    days: Option<WindowDays>,
    reading: Reading,
    stores: &'a StoreMap,
    member_conflict: MemberConflict,
    position: Position,
    counts: Counts,
    notes: Notes,
    /// When live clients last heard of it: at first of its start, or of the attempt before.
    told_at: DateTime<Utc>,
    /// Whether they hear of the page that is being written.
    telling: bool,
}

impl Pull<'_> {
    async fn read_to_the_end(&mut self) -> Result<(), JobError> {
        let (mut page, mut mapped) = self.fetch().await?;
        loop {
            self.look_at(&page, &mapped);
            let turned = self.turn(&page);
            let Ok(true) = turned else {
                // The last page, or one whose successor must not be followed: what is here is kept.
                self.position.done = turned.is_ok();
                if self.position.done
                    && self.counts.total == 0
                    && page.records.is_empty()
                    && !self.others_follow
                {
                    self.notes.look_for_silence(&self.ctx.store, &self.attempt.run).await?;
                }
                let written = self.write_page(&page, mapped).await?;
                self.wrote(written);
                return turned.map(drop);
            };
            if self.attempt.should_yield() {
                self.write_page(&page, mapped).await?;
                return Err(JobError::new(
                    Action::Yield,
                    "turn_over",
                    "the pull goes on at its next turn, from the page it has come to",
                ));
            }
            let (written, fetched) = tokio::join!(self.write_page(&page, mapped), self.fetch());
            self.wrote(written?);
            (page, mapped) = fetched?;
        }
    }

    /// Notes what a page says about where we are.
    fn look_at(&mut self, page: &Page, mapped: &Mapped) {
        self.position.saw(page, self.stream);
        let now = self.ctx.clock().now();
        self.telling = now - self.told_at >= TELL_EVERY;
        if self.telling {
            self.told_at = now;
        }
        self.notes.see(self.stream, page, self.connection);
        if let Some(suspect) = &self.reading.suspect {
            // A member has no time of its own: whenever it was made, it may have been changed meanwhile.
            let shown = mapped.rows().any(|row| suspect.is_shown_by(row.occurred_at, row.version_at));
            self.position.shifted |= shown;
        }
    }

    /// Goes to the place after this page, a page or a day further; false at the end of the part. Refuses where
    /// the vendor sends us in circles or further than is allowed.
    fn turn(&mut self, page: &Page) -> Result<bool, JobError> {
        let Some(next) = &page.next else {
            return Ok(self.position.turn_the_day(self.days, self.reading.pages_max));
        };
        self.position.guard.check(next)?;
        self.position.next = Some(next.clone());
        Ok(true)
    }

    /// Fetches the page at the position and maps it, while the page before is written; stops waiting when the job
    /// has to stop.
    async fn fetch(&self) -> Result<(Page, Mapped), JobError> {
        let day = self.days.and(self.position.day);
        let window =
            day.map_or_else(|| self.position.window(), |day| self.connection.window_of_day(self.stream, day));
        let request = PageRequest { partition: self.partition, window, next: self.position.next.as_ref() };
        let page = self.attempt.interruptible(self.connection.fetch_page(self.stream, &request)).await?;
        let mapped = self.map(&page);
        Ok((page, mapped))
    }

    /// Maps a page; a large one where blocking is allowed, so that other jobs do not wait for it.
    fn map(&self, page: &Page) -> Mapped {
        let map = || self.connection.map_page(self.stream, page);
        // A runtime of one thread has no other place.
        let several = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        if several && page.records.len() > LIGHT_RECORDS_MAX {
            tokio::task::block_in_place(map)
        } else {
            map()
        }
    }

    fn wrote(&mut self, (counts, position): (Counts, Position)) {
        self.counts = counts;
        self.position = position;
    }

    /// Stores one page in one transaction; the counts of the run and its position with it.
    async fn write_page(&self, page: &Page, mut mapped: Mapped) -> Result<(Counts, Position), JobError> {
        let total = mapped.total();
        let skipped = mapped.skipped;
        let mut failed: Vec<NewFailure> =
            std::mem::take(&mut mapped.failures).into_iter().map(not_mapped).collect();
        let latest = mapped.rows().filter_map(|row| row.version_at).max();
        let stored: Vec<String> = mapped.rows().map(|row| row.id.to_owned()).collect();
        let (name, run) = (self.attempt.run.sync_type.as_str(), self.attempt.run.id);
        let batch = Batch {
            system_id: self.reading.system,
            stores: self.stores,
            sync_log_id: Some(run),
            observed_at: page.asked_at,
            clock: self.ctx.clock(),
            force: false,
        };
        let mut tx = self.attempt.begin().await?;
        let refused = storing::store(&mut tx, batch, self.member_conflict, mapped).await?;
        failed.extend(refused.into_iter().map(|(_, record)| NewFailure::from(record)));
        let counts = self.add(total, &failed, skipped);
        let clock = self.ctx.clock();
        let of = Failing { system_id: self.reading.system, stream: name, sync_log_id: Some(run) };
        sync_failures::resolve(&mut tx, clock, of.system_id, name, &good_ones(&stored, &failed)).await?;
        sync_failures::record_batch(&mut tx, clock, of, failed).await?;
        let (asked, answered) = (page.request_sample.to_string(), page.response_sample.to_string());
        let mut position = self.position.clone();
        position.counted(counts);
        let failing = self.too_many_failed(counts);
        position.spoilt |= position.done && failing;
        let claim = self.attempt.run.claim();
        let text = position.to_text();
        sync_logs::progress(&mut tx, claim, Some(&text), counts, Some(&asked), Some(&answered)).await?;
        self.notes.write(&mut tx, &self.attempt.run).await?;
        if self.telling && (!position.done || self.others_follow) {
            sync_logs::tell(&mut tx, clock, EventKind::RunProgressed, &self.attempt.run, counts).await?;
        }
        if position.done {
            if !failing {
                self.reading.finish(&mut tx, self.ctx, &position, run).await?;
            }
        } else if self.stream.ascending {
            self.reading.creep(&mut tx, self.ctx, latest, run).await?;
        }
        tx.commit().await?;
        self.attempt.note_progress();
        tracing::debug!(page = position.pages, records = page.records.len(), "page stored");
        Ok((counts, position))
    }

    fn add(&self, total: u64, failed: &[NewFailure], skipped: u64) -> Counts {
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        let failed = i64::try_from(failed.len()).unwrap_or(i64::MAX);
        let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
        Counts {
            total: self.counts.total + total,
            success: self.counts.success + (total - failed - skipped).max(0),
            failed: self.counts.failed + failed,
            skipped: self.counts.skipped + skipped,
        }
    }

    /// Whether a larger share of this part's records failed than the manifest allows.
    fn too_many_failed(&self, counts: Counts) -> bool {
        let began = self.position.part_began;
        let (total, failed) = (counts.total - began.total, counts.failed - began.failed);
        total >= SHARE_RECORDS_MIN && failed as f64 / total as f64 > self.stream.failure_share_max
    }
}

/// How the run ended, once every page of every part is stored.
fn verdict(reached: &Reached) -> Result<Done, JobError> {
    let counts = reached.counts;
    if reached.place.as_ref().is_some_and(|place| place.spoilt) {
        return Err(JobError::give_up(
            "too_many_failures",
            format!(
                "{} of {} records could not be stored, more than the manifest allows; the next run reads the \
                 same window again. See the failures of this run for the reasons, mend the mapping or the \
                 vendor's data",
                counts.failed, counts.total
            ),
        ));
    }
    let status = if counts.failed > 0 { SyncStatus::Partial } else { SyncStatus::Success };
    Ok(Done { status })
}

fn not_mapped(failure: RecordFailure) -> NewFailure {
    let RecordFailure { external_id, reason, raw } = failure;
    NewFailure { stage: FailureStage::Mapping, external_id, reason, raw }
}

/// The stored records without those that failed after all.
fn good_ones<'a>(stored: &'a [String], failed: &[NewFailure]) -> Vec<&'a str> {
    let failed: HashSet<&str> = failed.iter().map(|failure| failure.external_id.as_str()).collect();
    stored.iter().map(String::as_str).filter(|id| !failed.contains(id)).collect()
}
