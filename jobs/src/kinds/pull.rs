//! `pull`: reads a window of a vendor's stream, page by page, into our tables.
//!
//! A page is one transaction: fence, records, failures, position, counts. So a crash resumes at the last
//! committed page and the counts are those of what is stored. The next page is fetched while this one is
//! written. The watermark moves in the transaction of the last page, never before; see [`watermark`].

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::sync_failures::{self, Failing, FailureStage, NewFailure};
use zhilian_sync_store::sync_logs::{self, Counts};
use zhilian_sync_store::{
    MemberConflict, SyncStatus, external_records, member_syncs, pos_transactions, supplier_orders,
};

use crate::context::Context;
use crate::enqueue::PullParameters;
use crate::outcome::{Action, JobError};
use crate::vendor::{Connection, Mapped, Page, PageRequest, PageToken, RecordFailure, Stream};
use crate::worker::{Attempt, Done};

mod notes;
mod position;
pub mod watermark;

use notes::Notes;
use position::Position;
use watermark::Reading;

/// Fewer records than this say nothing about the share that failed.
const SHARE_RECORDS_MIN: i64 = 10;
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
    let reading = Reading::begin(ctx, &system, stream, &parameters).await?;
    let (position, counts) = Position::resume(ctx, &attempt.run, stream, &reading);
    let notes = Notes::resume(&attempt.run, position.pages);
    let mut pull = Pull {
        ctx,
        attempt,
        connection: &connection,
        stream,
        reading,
        stores: system.stores(),
        member_conflict: system.member_conflict,
        position,
        counts,
        notes,
        told_at: ctx.clock().now(),
        telling: false,
    };
    pull.read_to_the_end().await?;
    pull.verdict()
}

/// One attempt at a window.
struct Pull<'a> {
    ctx: &'a Context,
    attempt: &'a Attempt,
    connection: &'a Connection,
    stream: &'a Stream,
    reading: Reading,
    stores: StoreMap,
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
        if self.position.done {
            return Ok(());
        }
        let mut page = self.fetch(self.position.next.clone()).await?;
        loop {
            let mapped = self.look_at(&page);
            let following = self.following(&page);
            let Ok(Some(next)) = following else {
                // The last page, or one whose successor must not be followed: what is here is kept.
                self.position.done = following.is_ok();
                if self.position.done && self.counts.total == 0 && page.records.is_empty() {
                    self.notes.look_for_silence(&self.ctx.store, &self.attempt.run).await?;
                }
                self.counts = self.write_page(&page, mapped).await?;
                return following.map(drop);
            };
            self.position.next = Some(next.clone());
            if self.attempt.should_yield() {
                self.counts = self.write_page(&page, mapped).await?;
                return Err(JobError::new(
                    Action::Yield,
                    "turn_over",
                    "the pull goes on at its next turn, from the page it has come to",
                ));
            }
            let (written, fetched) = tokio::join!(self.write_page(&page, mapped), self.fetch(Some(next)));
            self.counts = written?;
            page = fetched?;
        }
    }

    /// Maps a page, and notes what it says about where we are.
    fn look_at(&mut self, page: &Page) -> Mapped {
        self.position.saw(page, self.stream);
        let now = self.ctx.clock().now();
        self.telling = now - self.told_at >= TELL_EVERY;
        if self.telling {
            self.told_at = now;
        }
        let mapped = self.connection.map_page(self.stream, page);
        self.notes.see(self.stream, page, self.connection);
        if let Some(suspect) = &self.reading.suspect {
            let transactions = mapped.transactions.iter().map(|one| (Some(one.occurred_at), one.version_at));
            let records = mapped.records.iter().map(|one| (one.occurred_at, one.version_at));
            let orders = mapped.orders.iter().map(|one| (Some(one.order_date), one.version_at));
            // A member has no time of its own: whenever it was made, it may have been changed meanwhile.
            let members = mapped.members.iter().map(|one| (None, one.version_at));
            let mut all = transactions.chain(records).chain(orders).chain(members);
            let shown = all.any(|(occurred, version)| suspect.is_shown_by(occurred, version));
            self.position.shifted |= shown;
        }
        mapped
    }

    /// The page after this one, unless the vendor sends us in circles or further than is allowed.
    fn following(&mut self, page: &Page) -> Result<Option<PageToken>, JobError> {
        let Some(next) = &page.next else { return Ok(None) };
        self.position.guard.check(next)?;
        Ok(Some(next.clone()))
    }

    /// Fetches a page; stops waiting when the job has to stop.
    async fn fetch(&self, next: Option<PageToken>) -> Result<Page, JobError> {
        let request = PageRequest { window: self.position.window(), next: next.as_ref() };
        self.attempt.interruptible(self.connection.fetch_page(self.stream, &request)).await
    }

    /// Stores one page in one transaction; the counts of the run with it.
    async fn write_page(&self, page: &Page, mapped: Mapped) -> Result<Counts, JobError> {
        let Mapped { transactions, records, orders, members, failures, skipped } = mapped;
        let mut failed: Vec<NewFailure> = failures.into_iter().map(not_mapped).collect();
        let versions = transactions.iter().map(|transaction| transaction.version_at);
        let versions = versions.chain(records.iter().map(|record| record.version_at));
        let versions = versions.chain(orders.iter().map(|order| order.version_at));
        let latest = versions.chain(members.iter().map(|member| member.version_at)).flatten().max();
        let ids = transactions.iter().map(|transaction| &transaction.external_id);
        let ids = ids.chain(records.iter().map(|record| &record.external_id));
        let ids = ids.chain(orders.iter().map(|order| &order.order_number));
        let stored: Vec<String> =
            ids.chain(members.iter().map(|member| &member.member_id)).cloned().collect();
        let (name, run) = (self.attempt.run.sync_type.as_str(), self.attempt.run.id);
        let batch = Batch {
            system_id: self.reading.system,
            stores: &self.stores,
            sync_log_id: Some(run),
            observed_at: page.asked_at,
            clock: self.ctx.clock(),
            force: false,
        };
        let mut tx = self.attempt.begin().await?;
        let (_, refused) = pos_transactions::upsert_batch_isolating(&mut tx, batch, transactions).await?;
        failed.extend(refused.into_iter().map(NewFailure::from));
        let (_, refused) = external_records::upsert_batch_isolating(&mut tx, batch, records).await?;
        failed.extend(refused.into_iter().map(NewFailure::from));
        let (_, refused) = supplier_orders::upsert_batch_isolating(&mut tx, batch, orders).await?;
        failed.extend(refused.into_iter().map(NewFailure::from));
        let rule = self.member_conflict;
        let (_, refused) = member_syncs::upsert_batch_isolating(&mut tx, batch, rule, members).await?;
        failed.extend(refused.into_iter().map(NewFailure::from));
        let counts = self.add(page, &failed, skipped);
        let clock = self.ctx.clock();
        let of = Failing { system_id: self.reading.system, stream: name, sync_log_id: Some(run) };
        sync_failures::resolve(&mut tx, clock, of.system_id, name, &good_ones(&stored, &failed)).await?;
        sync_failures::record_batch(&mut tx, clock, of, failed).await?;
        let (asked, answered) = (page.request_sample.to_string(), page.response_sample.to_string());
        let position = self.position.to_text();
        let claim = self.attempt.run.claim();
        sync_logs::progress(&mut tx, claim, Some(&position), counts, Some(&asked), Some(&answered)).await?;
        self.notes.write(&mut tx, &self.attempt.run).await?;
        if self.telling && !self.position.done {
            sync_logs::tell(&mut tx, clock, EventKind::RunProgressed, &self.attempt.run, counts).await?;
        }
        if self.position.done {
            if !self.too_many_failed(counts) {
                self.reading.finish(&mut tx, self.ctx, &self.position, run).await?;
            }
        } else if self.stream.ascending {
            self.reading.creep(&mut tx, self.ctx, latest, run).await?;
        }
        tx.commit().await?;
        tracing::debug!(page = self.position.pages, records = page.records.len(), "page stored");
        Ok(counts)
    }

    fn add(&self, page: &Page, failed: &[NewFailure], skipped: u64) -> Counts {
        let total = i64::try_from(page.records.len()).unwrap_or(i64::MAX);
        let failed = i64::try_from(failed.len()).unwrap_or(i64::MAX);
        let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
        Counts {
            total: self.counts.total + total,
            success: self.counts.success + (total - failed - skipped).max(0),
            failed: self.counts.failed + failed,
            skipped: self.counts.skipped + skipped,
        }
    }

    fn too_many_failed(&self, counts: Counts) -> bool {
        counts.total >= SHARE_RECORDS_MIN
            && counts.failed as f64 / counts.total as f64 > self.stream.failure_share_max
    }

    /// How the window ended, once every page is stored.
    fn verdict(&self) -> Result<Done, JobError> {
        let counts = self.counts;
        if self.too_many_failed(counts) {
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
