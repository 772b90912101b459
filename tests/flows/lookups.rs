//! Members that a vendor tells only to whoever names them: looked up by the telephone numbers that bills bring.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest};
use zhilian_sync_jobs::enqueue::PullParameters;
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::sync_logs::Run;
use zhilian_sync_store::{SyncStatus, external_systems, member_syncs};

use crate::harness::{Flow, with_manifest};

const MANIFEST: &str = r#"
[meta]
name = "test"
title = "Acme"
types = ["pos"]
[credentials.api_key]
label = "Key"
[auth]
kind = "none"
[probe]
stream = "transactions"
message = "ok"
[streams.transactions]
target = "pos_transactions"
request.path = "/bills"
answer.records = "bills"
window.from_param = "from"
mapping = { money_unit = "minor", fields = { external_id = "id", total = "total", occurred_at = "at", customer_phone = "phone", version_at = "at" } }
[streams.members]
target = "member_syncs"
request.path = "/members/{lookup.key}"
answer.records = "member"
lookup = { keys = "customer_phones", size = 2 }
mapping = { money_unit = "minor", fields = { member_id = "no", phone = "phone", points = "points" } }
"#;

/// The vendor's bills and members.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    bills: Vec<Value>,
    points: BTreeMap<String, i64>,
    /// At this number it answers with a fault, once.
    fault: Option<String>,
}

impl Shop {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    fn answer(&self, request: &RecordedRequest) -> Answer {
        let mut books = self.books();
        let Some(phone) = request.path().strip_prefix("/members/") else {
            return Answer::json(200, &json!({"bills": books.bills}));
        };
        if books.fault.as_deref() == Some(phone) {
            books.fault = None;
            return Answer::status(500);
        }
        match books.points.get(phone) {
            Some(points) => {
                let member = json!({"no": format!("M-{phone}"), "phone": phone, "points": points});
                Answer::json(200, &json!({ "member": member }))
            }
            None => Answer::json(404, &json!({})),
        }
    }

    fn sell(&self, flow: &Flow, id: &str, phone: &str) {
        let at = flow.store().clock().now().to_rfc3339();
        self.books().bills.push(json!({"id": id, "total": 100, "at": at, "phone": phone}));
    }
}

async fn pull_members(flow: &Flow, parameters: PullParameters) -> Run {
    flow.pull_with("members", parameters).await
}

/// The numbers that were asked for since.
fn asked(flow: &Flow, since: usize) -> Vec<String> {
    let requests = flow.vendor.requests().into_iter().skip(since);
    requests.filter_map(|one| one.path().strip_prefix("/members/").map(str::to_owned)).collect()
}

async fn points(flow: &Flow) -> BTreeMap<String, i64> {
    let filter = member_syncs::Filter { system_id: Some(flow.system.id), limit: 100, ..Default::default() };
    let members = member_syncs::list(flow.store(), &filter).await.unwrap();
    members.into_iter().map(|member| (member.member_id, member.points)).collect()
}

async fn play<F: Future<Output = Flow>>(scene: impl Fn(Flow, Shop) -> F) {
    let shop = Shop::default();
    let script = shop.clone();
    with_manifest(
        MANIFEST,
        move |request| script.answer(request),
        |flow| {
            *shop.books() = Books::default();
            scene(flow, shop.clone())
        },
    )
    .await;
}

#[tokio::test]
async fn whoever_pays_is_looked_up_and_again_with_the_next_bill() {
    play(|flow, shop| async move {
        shop.books().points.extend([("138".to_owned(), 5), ("140".to_owned(), 7)]);
        for (id, phone) in [("b1", "140"), ("b2", "138"), ("b3", "139"), ("b4", "138"), ("b5", "")] {
            shop.sell(&flow, id, phone);
        }
        flow.pull().await;
        flow.advance(TimeDelta::minutes(10));
        let since = flow.vendor.requests().len();
        let run = pull_members(&flow, PullParameters::default()).await;
        assert_eq!(
            (run.status, run.records_total, run.records_failed),
            (SyncStatus::Success, 2, 0),
            "{run:?}"
        );
        let mut numbers = asked(&flow, since);
        numbers.sort_unstable();
        assert_eq!(numbers, ["138", "139", "140"], "each number once, and nobody without one");
        let expected = [("M-138".to_owned(), 5), ("M-140".to_owned(), 7)];
        assert_eq!(points(&flow).await, expected.clone().into());

        // Nothing was bought since: nobody is asked for.
        let since = flow.vendor.requests().len();
        flow.advance(TimeDelta::minutes(10));
        pull_members(&flow, PullParameters::default()).await;
        assert!(asked(&flow, since).is_empty(), "{:?}", asked(&flow, since));

        shop.books().points.insert("138".to_owned(), 50);
        shop.sell(&flow, "b6", "138");
        flow.pull().await;
        flow.advance(TimeDelta::minutes(10));
        let since = flow.vendor.requests().len();
        pull_members(&flow, PullParameters::default()).await;
        assert_eq!(asked(&flow, since), ["138"]);
        assert_eq!(points(&flow).await["M-138"], 50);

        // A pull of everything asks for all of them again.
        let since = flow.vendor.requests().len();
        pull_members(&flow, PullParameters { anew: true, ..PullParameters::default() }).await;
        assert_eq!(asked(&flow, since).len(), 3);
        flow
    })
    .await;
}

#[tokio::test]
async fn a_lookup_goes_on_behind_the_last_number_that_is_stored() {
    play(|flow, shop| async move {
        for phone in ["1", "2", "3", "4", "5"] {
            shop.books().points.insert(phone.to_owned(), 1);
            shop.sell(&flow, phone, phone);
        }
        flow.pull().await;
        flow.advance(TimeDelta::minutes(10));
        shop.books().fault = Some("4".to_owned());
        let run = pull_members(&flow, PullParameters::default()).await;
        assert_eq!((run.status, run.records_total), (SyncStatus::Pending, 2), "{run:?}");
        let since = flow.vendor.requests().len();
        flow.advance(TimeDelta::minutes(5));
        drain(&flow.ctx).await;
        let run = flow.run(run.id).await;
        assert_eq!((run.status, run.records_total), (SyncStatus::Success, 5), "{run:?}");
        let mut numbers = asked(&flow, since);
        numbers.sort_unstable();
        assert_eq!(numbers, ["3", "4", "5"]);
        flow
    })
    .await;
}

/// A system of one store knows the customers of that store alone.
#[tokio::test]
async fn a_system_of_one_store_looks_up_the_customers_of_its_store() {
    play(|flow, shop| async move {
        shop.books().points.insert("138".to_owned(), 5);
        shop.sell(&flow, "b1", "138");
        flow.pull().await;
        flow.advance(TimeDelta::minutes(10));
        let mut system = flow.system().await;
        system.store_id = Some("another".to_owned());
        let mut tx = flow.store().begin().await.unwrap();
        external_systems::save(&mut tx, &system, None, flow.store().clock().now()).await.unwrap();
        tx.commit().await.unwrap();
        let run = pull_members(&flow, PullParameters::default()).await;
        assert_eq!((run.status, run.records_total), (SyncStatus::Success, 0), "{run:?}");
        assert!(points(&flow).await.is_empty());
        flow
    })
    .await;
}
