//! A stream that is read once for each shop, day by day, page by page: in order, from where it stopped,
//! and every shop from its own beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest};
use zhilian_sync_jobs::enqueue::PullParameters;
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::sync_logs::Run;
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{SyncStatus, sync_cursors};

use crate::harness::{Flow, with_manifest};

/// One business day and one shop for each call, as Pinzhi has it. It is eight in the evening of January 4.
const MANIFEST: &str = r#"
[meta]
name = "test"
title = "Acme"
types = ["pos"]
[credentials.api_key]
label = "Key"
[auth]
kind = "none"
[envelope]
success = "body.success == 0"
[probe]
stream = "transactions"
message = "ok"
[streams.transactions]
target = "pos_transactions"
request = { method = "POST", path = "/orders", body = { shop = "{partition.ognid}", day = "{window.day}", page = "{page.number}" } }
window = { format = "date", days = true, reread_days = 1, first_window_days = 1 }
pagination = { style = "page", size = 2 }
answer.records = "res"
[streams.transactions.for_each]
request.path = "/shops"
records = "res"
when = "!has(record.closed)"
key = "ognid"
into = "shop"
[streams.transactions.mapping]
money_unit = "minor"
[streams.transactions.mapping.fields]
external_id = "id"
total = "total"
occurred_at = "at"
shop = "shop.ognno"
"#;

/// Shops, and by shop and day their bills with their totals.
#[derive(Clone, Default)]
struct Chain(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    shops: BTreeSet<&'static str>,
    bills: BTreeMap<(String, String), Vec<(String, Value)>>,
    /// At this shop, day and page it answers with a fault, once.
    fault: Option<(String, String, u64)>,
}

impl Chain {
    fn open(shops: &[&'static str]) -> Self {
        let chain = Self::default();
        chain.0.lock().unwrap().shops.extend(shops);
        chain
    }

    fn shops(&self, shops: &[&'static str]) {
        self.0.lock().unwrap().shops = shops.iter().copied().collect();
    }

    fn sell(&self, shop: &str, day: &str, bills: &[&str]) {
        let bills = bills.iter().map(|id| ((*id).to_owned(), json!(100)));
        self.0.lock().unwrap().bills.entry((shop.into(), day.into())).or_default().extend(bills);
    }

    fn fault_at(&self, shop: &str, day: &str, page: u64) {
        self.0.lock().unwrap().fault = Some((shop.into(), day.into(), page));
    }

    fn answer(&self, request: &RecordedRequest) -> Answer {
        let mut books = self.0.lock().unwrap();
        if request.path() == "/shops" {
            // In no order, and one that is closed.
            let shops =
                books.shops.iter().rev().map(|shop| json!({"ognid": shop, "ognno": format!("N-{shop}")}));
            let mut shops: Vec<Value> = shops.collect();
            shops.push(json!({"ognid": "Z", "closed": true}));
            return Answer::json(200, &json!({"success": 0, "res": shops}));
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let (shop, day) = (body["shop"].as_str().unwrap(), body["day"].as_str().unwrap());
        let page = body["page"].as_u64().unwrap();
        if books.fault == Some((shop.into(), day.into(), page)) {
            books.fault = None;
            return Answer::status(500);
        }
        let bills = books.bills.get(&(shop.to_owned(), day.to_owned())).cloned().unwrap_or_default();
        let first = (usize::try_from(page).unwrap() - 1) * 2;
        let bills = bills.iter().skip(first).take(2);
        let bills: Vec<Value> = bills
            .map(|(id, total)| json!({"id": id, "total": total, "at": format!("{day} 12:00:00")}))
            .collect();
        Answer::json(200, &json!({"success": 0, "res": bills}))
    }
}

/// What was asked since, as `shop day page`; the list of shops as `shops`.
fn asked(flow: &Flow, since: usize) -> Vec<String> {
    let requests = flow.vendor.requests().into_iter().skip(since);
    let shown = requests.map(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if request.path() == "/shops" {
            return "shops".to_owned();
        }
        format!("{} {} {}", body["shop"].as_str().unwrap(), body["day"].as_str().unwrap(), body["page"])
    });
    shown.collect()
}

/// Plays with these shops as the vendor.
async fn with_shops<F: Future<Output = Flow>>(chain: &Chain, play: impl Fn(Flow) -> F) {
    let script = chain.clone();
    with_manifest(MANIFEST, move |request| script.answer(request), play).await;
}

/// Reads a stretch of the past; the run as it stands then.
async fn backfill(flow: &Flow, from: &str, to: &str) -> Run {
    let at = |text: &str| Some(text.parse().unwrap());
    let parameters = PullParameters { from: at(from), to: at(to), anew: false };
    flow.pull_with("transactions", parameters).await
}

async fn stored(flow: &Flow) -> Vec<String> {
    flow.stored().await.into_keys().collect()
}

#[tokio::test]
async fn every_shop_is_read_day_by_day_and_page_by_page() {
    let chain = Chain::open(&["B", "A"]);
    chain.sell("A", "2026-01-03", &["a1", "a2", "a3"]);
    chain.sell("B", "2026-01-04", &["b1"]);
    with_shops(&chain, |flow| async {
        let run = flow.pull().await;
        assert_eq!((run.status, run.records_total), (SyncStatus::Success, 4), "{run:?}");
        let expected = [
            "shops",
            "A 2026-01-03 1",
            "A 2026-01-03 2",
            "A 2026-01-04 1",
            "B 2026-01-03 1",
            "B 2026-01-04 1",
        ];
        assert_eq!(asked(&flow, 0), expected);
        assert_eq!(stored(&flow).await, ["a1", "a2", "a3", "b1"]);
        let raw: Value = serde_json::from_str(&flow.stored().await["b1"].raw).unwrap();
        assert_eq!(raw["shop"]["ognno"], "N-B", "a record holds the shop that it was found in");
        flow
    })
    .await;
}

#[tokio::test]
async fn a_pull_goes_on_at_the_page_of_the_day_of_the_shop_where_it_stopped() {
    let chain = Chain::open(&["A", "B", "C"]);
    chain.sell("A", "2026-01-04", &["a1"]);
    chain.sell("B", "2026-01-03", &["b1"]);
    chain.sell("B", "2026-01-04", &["b2", "b3", "b4", "b5", "b6"]);
    chain.sell("C", "2026-01-04", &["c1"]);
    with_shops(&chain, |flow| {
        let chain = &chain;
        async move {
            chain.fault_at("B", "2026-01-04", 3);
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Pending, 6), "{run:?}");
            let since = flow.vendor.requests().len();
            // Within the time that a page token may be resumed.
            flow.advance(TimeDelta::minutes(5));
            drain(&flow.ctx).await;
            let run = flow.run(run.id).await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Success, 8), "{run:?}");
            let expected = ["shops", "B 2026-01-04 3", "C 2026-01-03 1", "C 2026-01-04 1"];
            assert_eq!(asked(&flow, since), expected);
            assert_eq!(stored(&flow).await.len(), 8);
            flow
        }
    })
    .await;
}

#[tokio::test]
async fn a_stale_place_begins_its_day_again_and_counts_it_once() {
    let chain = Chain::open(&["A", "B"]);
    chain.sell("A", "2026-01-03", &["a1"]);
    chain.sell("B", "2026-01-03", &["b1"]);
    chain.sell("B", "2026-01-04", &["b2", "b3", "b4"]);
    with_shops(&chain, |flow| {
        let chain = &chain;
        async move {
            chain.fault_at("B", "2026-01-04", 2);
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Pending, 4), "{run:?}");
            let since = flow.vendor.requests().len();
            flow.advance(TimeDelta::hours(3));
            drain(&flow.ctx).await;
            let run = flow.run(run.id).await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Success, 5), "{run:?}");
            assert_eq!(asked(&flow, since), ["shops", "B 2026-01-04 1", "B 2026-01-04 2"]);
            flow
        }
    })
    .await;
}

#[tokio::test]
async fn a_shop_that_vanished_meanwhile_is_passed_over() {
    let chain = Chain::open(&[]);
    chain.sell("A", "2026-01-03", &["a1"]);
    chain.sell("C", "2026-01-03", &["c1"]);
    with_shops(&chain, |flow| {
        let chain = &chain;
        async move {
            chain.shops(&["A", "B", "C"]);
            chain.fault_at("B", "2026-01-04", 1);
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Pending, "{run:?}");
            chain.shops(&["A", "C"]);
            let since = flow.vendor.requests().len();
            flow.advance(TimeDelta::minutes(5));
            drain(&flow.ctx).await;
            let run = flow.run(run.id).await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Success, 2), "{run:?}");
            assert_eq!(asked(&flow, since), ["shops", "C 2026-01-03 1", "C 2026-01-04 1"]);
            flow
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_shop_is_read_from_its_beginning_and_the_others_from_the_day_before_the_last() {
    let chain = Chain::open(&[]);
    // Nobody knows of these until the vendor writes them down late.
    chain.sell("A", "2026-01-03", &["a1"]);
    chain.sell("B", "2026-01-06", &["b1"]);
    with_shops(&chain, |flow| {
        let chain = &chain;
        async move {
            chain.shops(&["A"]);
            flow.pull().await;
            let key = |shop| sync_cursors::find(flow.store(), flow.system.id, "transactions", shop);
            assert!(key("").await.unwrap().is_none(), "a shop has a watermark of its own");
            assert!(key("A").await.unwrap().unwrap().watermark.unwrap() > noon() - TimeDelta::minutes(1));
            flow.advance(TimeDelta::days(2));
            chain.shops(&["A", "B"]);
            let since = flow.vendor.requests().len();
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Success, "{run:?}");
            let expected = [
                "shops",
                // The watermark's day is January 4.
                "A 2026-01-03 1",
                "A 2026-01-04 1",
                "A 2026-01-05 1",
                "A 2026-01-06 1",
                "B 2026-01-05 1",
                "B 2026-01-06 1",
            ];
            assert_eq!(asked(&flow, since), expected);
            assert_eq!(stored(&flow).await, ["a1", "b1"]);
            flow
        }
    })
    .await;
}

#[tokio::test]
async fn one_shop_with_bad_records_keeps_no_other_from_its_watermark() {
    let chain = Chain::open(&["A", "B", "C"]);
    let good: Vec<String> = (0..30).map(|n| format!("a{n:02}")).collect();
    chain.sell("A", "2026-01-04", &good.iter().map(String::as_str).collect::<Vec<_>>());
    let bad = (0..12).map(|n| (format!("b{n:02}"), json!("much")));
    chain.0.lock().unwrap().bills.insert(("B".into(), "2026-01-04".into()), bad.collect());
    chain.sell("C", "2026-01-04", &["c1"]);
    with_shops(&chain, |flow| async {
        let run = flow.pull_to_its_end().await;
        assert_eq!(run.error_code.as_deref(), Some("too_many_failures"), "{run:?}");
        let mut moved = Vec::new();
        for shop in ["A", "B", "C"] {
            let cursor = sync_cursors::find(flow.store(), flow.system.id, "transactions", shop).await;
            moved.push(cursor.unwrap().is_some());
        }
        assert_eq!(moved, [true, false, true]);
        assert_eq!(stored(&flow).await.len(), 31);
        flow
    })
    .await;
}

#[tokio::test]
async fn a_backfill_reads_the_days_it_names_of_every_shop_and_moves_nothing() {
    let chain = Chain::open(&["A", "B"]);
    chain.sell("B", "2025-12-02", &["b1"]);
    with_shops(&chain, |flow| async {
        // From noon to midnight, in Shanghai.
        let run = backfill(&flow, "2025-12-01T04:00:00Z", "2025-12-02T16:00:00Z").await;
        assert_eq!(run.status, SyncStatus::Success);
        let expected = ["shops", "A 2025-12-01 1", "A 2025-12-02 1", "B 2025-12-01 1", "B 2025-12-02 1"];
        assert_eq!(asked(&flow, 0), expected);
        assert_eq!(stored(&flow).await, ["b1"]);
        let cursors = sync_cursors::list_of_system(flow.store(), flow.system.id).await.unwrap();
        assert_eq!(cursors, []);
        flow
    })
    .await;
}

#[tokio::test]
async fn a_shop_without_an_end_of_pages_is_cut_off_and_many_short_days_are_not() {
    let chain = Chain::open(&["A"]);
    for day in 1..=4 {
        let bills: Vec<String> = (0..30).map(|n| format!("{day}-{n}")).collect();
        let bills: Vec<&str> = bills.iter().map(String::as_str).collect();
        chain.sell("A", &format!("2025-12-{day:02}"), &bills);
    }
    let endless: Vec<String> = (0..60).map(|n| format!("5-{n}")).collect();
    chain.sell("A", "2025-12-05", &endless.iter().map(String::as_str).collect::<Vec<_>>());
    with_shops(&chain, |flow| async {
        for (to, ends) in [("2025-12-04T16:00:00Z", None), ("2025-12-05T16:00:00Z", Some("too_many_pages"))] {
            let run = backfill(&flow, "2025-12-01T00:00:00Z", to).await;
            assert_eq!(run.error_code.as_deref(), ends, "{to}");
        }
        flow
    })
    .await;
}

#[tokio::test]
async fn nothing_to_read_for_is_told_and_not_taken_for_success() {
    let chain = Chain::open(&[]);
    with_shops(&chain, |flow| async {
        let run = flow.pull_to_its_end().await;
        assert_eq!((run.status, run.error_code.as_deref()), (SyncStatus::Failed, Some("no_partitions")));
        flow
    })
    .await;
}
