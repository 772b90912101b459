//! Nothing slips between two windows: records changed while a list is read, records on a boundary's
//! second, pages that shift.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest};
use zhilian_sync_store::SyncStatus;
use zhilian_sync_store::testing::noon;

use crate::harness::{Flow, insert, list, on_every_database, page_number, sale, till, time};

/// A till with a list that changes while it is read: by id, filtered by its last change, in pages of two.
#[derive(Clone, Default)]
struct Till(Arc<Mutex<Sales>>);

#[derive(Default)]
struct Sales {
    by_id: BTreeMap<String, (i64, DateTime<Utc>, DateTime<Utc>)>,
    /// How often each page was given.
    given: BTreeMap<u64, u32>,
    /// After this page was given for the so-manieth time, this happens.
    meanwhile: BTreeMap<(u64, u32), (String, i64, DateTime<Utc>)>,
}

const PAGE: usize = 2;

/// The same till described as one that is asked for both ends of its window, so that a record that
/// changes leaves the list that is being read.
async fn bounded(mut flow: Flow) -> Flow {
    let mut system = till(flow.store(), "a till with bounds", &flow.vendor.url());
    system.provider = "generic-rest".into();
    let config = json!({
        "path": "/v1/sales", "until_param": "updated_before", "auth": "header", "auth_header": "X-Api-Key",
        "records_path": "data.items", "total_pages_path": "data.pages", "page_size": PAGE, "money_unit": "minor",
        "fields": {
            "external_id": "sale_id", "total": "total_fen", "subtotal": "subtotal_fen",
            "occurred_at": "sold_at", "version_at": "updated_at",
        },
    });
    system.config = sqlx::types::Json(config.as_object().unwrap().clone());
    insert(flow.store(), &system).await;
    flow.system = system;
    flow
}

impl Till {
    fn sell(&self, id: &str, total: i64, at: DateTime<Utc>) {
        self.0.lock().unwrap().by_id.insert(id.into(), (total, at, at));
    }

    fn meanwhile(&self, after_page: u64, time: u32, id: &str, total: i64, at: DateTime<Utc>) {
        self.0.lock().unwrap().meanwhile.insert((after_page, time), (id.into(), total, at));
    }

    fn answer(&self, request: &RecordedRequest) -> Answer {
        let mut sales = self.0.lock().unwrap();
        let (since, before) = (time(request, "updated_since"), time(request, "updated_before"));
        let inside = |at: DateTime<Utc>| {
            since.is_none_or(|since| at >= since) && before.is_none_or(|before| at < before)
        };
        let matching: Vec<_> = sales.by_id.iter().filter(|(_, (_, _, updated))| inside(*updated)).collect();
        let page = page_number(request);
        let first = (usize::try_from(page).unwrap() - 1) * PAGE;
        let items: Vec<_> = matching
            .iter()
            .skip(first)
            .take(PAGE)
            .map(|(id, (total, sold, updated))| {
                let mut one = sale(id, *total, *updated);
                one["sold_at"] = sold.to_rfc3339().into();
                one
            })
            .collect();
        let answer = list(&items, page, matching.len().div_ceil(PAGE) as u64);
        let time = *sales.given.entry(page).and_modify(|times| *times += 1).or_insert(1);
        if let Some((id, total, at)) = sales.meanwhile.remove(&(page, time)) {
            let sold = sales.by_id.get(&id).map_or(at, |(_, sold, _)| *sold);
            sales.by_id.insert(id, (total, sold, at));
        }
        answer
    }

    fn totals(&self) -> BTreeMap<String, i64> {
        self.0.lock().unwrap().by_id.iter().map(|(id, (total, _, _))| (id.clone(), *total)).collect()
    }
}

async fn nothing_is_missed(prepare: impl Fn(&Till), pulls: usize) {
    pulls_apart(prepare, pulls, TimeDelta::minutes(7)).await;
}

/// Pulls again and again, so far apart; everything must be there in the end.
async fn pulls_apart(prepare: impl Fn(&Till), pulls: usize, apart: TimeDelta) {
    let till = Till::default();
    prepare(&till);
    let (told, script) = (till.clone(), till.clone());
    on_every_database(
        move |request| script.answer(request),
        |flow| {
            let (till, prepare) = (&told, &prepare);
            async move {
                let flow = bounded(flow).await;
                *till.0.lock().unwrap() = Sales::default();
                prepare(till);
                for _ in 0..pulls {
                    let run = flow.pull_to_its_end().await;
                    assert_eq!(run.status, SyncStatus::Success, "{run:?}");
                    flow.advance(apart);
                }
                let stored: BTreeMap<String, i64> =
                    flow.stored().await.into_iter().map(|(id, row)| (id, row.total)).collect();
                assert_eq!(stored, till.totals());
                flow
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_record_changed_between_two_pages_arrives_with_the_next_run() {
    nothing_is_missed(
        |till| {
            for n in 1..=8 {
                till.sell(&format!("S-{n}"), n, noon() - TimeDelta::hours(1));
            }
            // S-7 is still to come when it changes: it leaves this window for the next one.
            till.meanwhile(2, 1, "S-7", 700, noon() + TimeDelta::seconds(1));
        },
        3,
    )
    .await;
}

#[tokio::test]
async fn a_record_that_slips_to_a_page_already_read_is_found_again() {
    nothing_is_missed(
        |till| {
            for n in 1..=8 {
                till.sell(&format!("S-{n}"), n, noon() - TimeDelta::hours(1));
            }
            // S-1 was on page one. It leaves the window, so S-5 moves up to page two, which was read.
            till.meanwhile(2, 1, "S-1", 100, noon() + TimeDelta::seconds(1));
        },
        3,
    )
    .await;
}

#[tokio::test]
async fn a_shift_is_noticed_however_soon_the_next_run_comes() {
    // The next run's window ends before the change that shifted this one: the suspicion must outlive it.
    pulls_apart(
        |till| {
            for n in 1..=8 {
                till.sell(&format!("S-{n}"), n, noon() - TimeDelta::hours(1));
            }
            till.meanwhile(2, 1, "S-1", 100, noon() + TimeDelta::seconds(1));
        },
        12,
        TimeDelta::seconds(1),
    )
    .await;
}

#[tokio::test]
async fn a_second_reading_that_is_shifted_too_is_repeated() {
    pulls_apart(
        |till| {
            for n in 1..=8 {
                till.sell(&format!("S-{n}"), n, noon() - TimeDelta::hours(1));
            }
            till.meanwhile(2, 1, "S-1", 100, noon() + TimeDelta::seconds(1));
            // The third pull reads the past again, and it happens again.
            till.meanwhile(2, 2, "S-2", 200, noon() + TimeDelta::minutes(14) + TimeDelta::seconds(1));
        },
        8,
        TimeDelta::minutes(7),
    )
    .await;
}

#[tokio::test]
async fn two_records_of_the_boundarys_second_are_both_found() {
    let boundary = noon();
    let till = Till::default();
    let (told, script) = (till.clone(), till.clone());
    on_every_database(
        move |request| script.answer(request),
        |flow| {
            let till = &told;
            async move {
                let flow = bounded(flow).await;
                *till.0.lock().unwrap() = Sales::default();
                till.sell("S-1", 1, boundary - TimeDelta::minutes(1));
                flow.pull_to_its_end().await;
                // The window's end, by whatever the manifest's lag is.
                let cursor =
                    zhilian_sync_store::sync_cursors::find(flow.store(), flow.system.id, "transactions", "")
                        .await
                        .unwrap()
                        .unwrap();
                let end = cursor.watermark.unwrap();
                // Both are written down by the vendor late, with the very second that was read up to.
                till.sell("S-2", 2, end);
                till.sell("S-3", 3, end - TimeDelta::milliseconds(400));
                flow.advance(TimeDelta::minutes(7));
                flow.pull_to_its_end().await;
                assert_eq!(flow.stored().await.len(), 3);
                flow
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_older_answer_never_overwrites_a_newer_record() {
    let at = noon() - TimeDelta::hours(1);
    on_every_database(
        move |_| list(&[sale("S-1", 100, at)], 1, 1),
        |flow| async move {
            flow.vendor.push(list(&[sale("S-1", 200, at + TimeDelta::minutes(5))], 1, 1));
            flow.pull().await;
            assert_eq!(flow.stored().await["S-1"].total, 200);
            flow.advance(TimeDelta::minutes(7));
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Success);
            assert_eq!(flow.stored().await["S-1"].total, 200, "a stale listing won over a newer record");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn pages_that_overlap_store_every_record_once() {
    let at = noon() - TimeDelta::hours(1);
    on_every_database(
        move |request| match page_number(request) {
            1 => list(&[sale("S-1", 1, at), sale("S-2", 2, at), sale("S-2", 2, at)], 1, 2),
            _ => list(&[sale("S-2", 2, at), sale("S-3", 3, at)], 2, 2),
        },
        |flow| async {
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Success, 5));
            assert_eq!(flow.stored().await.len(), 3);
            flow
        },
    )
    .await;
}
