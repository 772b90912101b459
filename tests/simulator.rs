//! The vendor simulator seen over HTTP, as a client sees it: its window, its pages, its faults, and
//! that its ledger is what it serves. The demo's verdict is worth as much as these.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, Scripted};
use zhilian_sync::simulator::{Every, FaultPlan, Simulator, SimulatorSettings};
use zhilian_sync_store::Clock;

const KEY: &str = "till-key";

/// 2026-01-01 12:00 in China.
fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_240_000, 0).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the test is a client of its own, not a vendor call")]
fn client() -> reqwest::Client {
    // A second test of the same process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn start(history: u32, faults: FaultPlan, clock: &Clock) -> Simulator {
    let settings = SimulatorSettings {
        shop_name: "面馆一号".into(),
        shop_id: "shop-1".into(),
        api_key: KEY.into(),
        seed: 11,
        pace: None,
        history,
        history_span: Duration::from_secs(100),
        faults,
    };
    Simulator::start(settings, clock.clone()).await.unwrap()
}

async fn get(simulator: &Simulator, path: &str, query: &[(&str, String)]) -> reqwest::Response {
    let request = client().get(format!("{}{path}", simulator.url()));
    request.header("X-Api-Key", KEY).query(query).send().await.unwrap()
}

async fn page(simulator: &Simulator, page: u64, before: DateTime<Utc>) -> Value {
    let before = before.to_rfc3339_opts(SecondsFormat::Millis, true);
    let query = [("updated_before", before), ("page", page.to_string()), ("page_size", "10".into())];
    let response = get(simulator, "/v1/sales", &query).await;
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"]["items"].as_array().unwrap().iter().map(|item| item["sale_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_ping_names_the_shop_and_both_routes_want_the_key() {
    let simulator = start(0, FaultPlan::lively(), &Clock::fake(noon())).await;
    let ping = get(&simulator, "/v1/ping", &[]).await;
    assert_eq!(ping.headers()["date"], "Thu, 01 Jan 2026 04:00:00 GMT");
    let body: Value = serde_json::from_str(&ping.text().await.unwrap()).unwrap();
    assert_eq!(body, json!({"code": 0, "data": {"shop_name": "面馆一号"}}));

    for path in ["/v1/ping", "/v1/sales"] {
        let url = format!("{}{path}", simulator.url());
        let none = client().get(&url).send().await.unwrap();
        let wrong = client().get(&url).header("X-Api-Key", "till-kez").send().await.unwrap();
        assert_eq!((none.status().as_u16(), wrong.status().as_u16()), (401, 401), "{path}");
    }
    assert_eq!(simulator.counters().refused, 4);
    assert_eq!(simulator.counters().requests, 0);
}

#[tokio::test]
async fn a_sale_on_the_wire_is_the_sale_in_the_ledger() {
    let clock = Clock::fake(noon());
    let simulator = start(0, FaultPlan::default(), &clock).await;
    clock.advance(TimeDelta::milliseconds(123));
    let id = simulator.sell();
    let served = page(&simulator, 1, noon() + TimeDelta::seconds(1)).await;
    let item = &served["data"]["items"][0];

    let entry = simulator.ledger()[&id];
    assert_eq!(item["sale_id"], id.as_str());
    assert_eq!(item["order_no"], "A1001");
    assert_eq!(item["kind"], entry.kind.as_str());
    assert_eq!(item["total_fen"].as_i64(), Some(entry.total_fen));
    assert_eq!(item["shop"], "shop-1");
    assert_eq!(item["sold_at"], "2026-01-01T12:00:00+08:00");
    assert_eq!(item["updated_at"], "2026-01-01T12:00:00.123+08:00");
    let lines = item["lines"].as_array().unwrap();
    let sum: i64 =
        lines.iter().map(|line| line["qty"].as_i64().unwrap() * line["price_fen"].as_i64().unwrap()).sum();
    assert_eq!(item["subtotal_fen"].as_i64(), Some(sum));
}

#[tokio::test]
async fn the_window_holds_its_start_and_not_its_end() {
    let clock = Clock::fake(noon());
    let simulator = start(0, FaultPlan::default(), &clock).await;
    for _ in 0..4 {
        simulator.sell();
        clock.advance(TimeDelta::seconds(1));
    }
    let text = |seconds| (noon() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Secs, false);
    let query = [("updated_since", text(1)), ("updated_before", text(3))];
    let answer = get(&simulator, "/v1/sales", &query).await.text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(ids(&answer), ["S-000002", "S-000003"]);
    assert_eq!(answer["data"]["pages"].as_u64(), Some(1));

    let bad = get(&simulator, "/v1/sales", &[("updated_since", "yesterday".into())]).await;
    assert_eq!(bad.status(), 400);
}

#[tokio::test]
async fn pages_are_in_the_order_of_ids_and_together_they_are_the_ledger() {
    let clock = Clock::fake(noon());
    let simulator = start(35, FaultPlan::default(), &clock).await;
    // Changed last, listed first: the order is not that of time.
    clock.advance(TimeDelta::seconds(5));
    assert!(simulator.correct("S-000001"));
    assert!(simulator.void("S-000002"));
    assert!(!simulator.void("S-000002"), "a void sale cannot be voided again");
    let refund = simulator.refund("S-000003").unwrap();
    assert_eq!(refund, "S-000036");

    let before = noon() + TimeDelta::seconds(6);
    let mut seen = BTreeMap::new();
    for number in 1..=4 {
        let page = page(&simulator, number, before).await;
        assert_eq!(page["data"]["page"].as_u64(), Some(number));
        assert_eq!(page["data"]["pages"].as_u64(), Some(4));
        for item in page["data"]["items"].as_array().unwrap() {
            let id = item["sale_id"].as_str().unwrap().to_owned();
            assert!(seen.keys().next_back().is_none_or(|last| *last < id), "{id} is out of order");
            seen.insert(id, (item["kind"].as_str().unwrap().to_owned(), item["total_fen"].as_i64().unwrap()));
        }
    }
    let ledger: BTreeMap<_, _> = simulator
        .ledger()
        .into_iter()
        .map(|(id, entry)| (id, (entry.kind.as_str().to_owned(), entry.total_fen)))
        .collect();
    assert_eq!(seen, ledger);
    assert_eq!(seen["S-000002"].0, "void");
    assert_eq!(seen["S-000036"], ("refund".to_owned(), seen["S-000003"].1));
    assert!(page(&simulator, 5, before).await["data"]["items"].as_array().unwrap().is_empty());
    let counters = simulator.counters();
    assert_eq!((counters.whole_listings, counters.longest_listing, counters.pages), (1, 4, 5));
}

#[tokio::test]
async fn faults_come_when_planned_and_are_counted() {
    let faults = FaultPlan {
        too_many_requests: Some(Every { first: 2, then: 4 }),
        server_error: Some(Every { first: 3, then: 0 }),
        duplicate: Some(Every { first: 2, then: 0 }),
        shift: None,
    };
    let simulator = start(30, faults, &Clock::fake(noon())).await;
    let mut statuses = Vec::new();
    let mut lengths = Vec::new();
    for _ in 0..6 {
        let response = get(&simulator, "/v1/sales", &[("page_size", "10".into())]).await;
        let status = response.status().as_u16();
        if status == 429 {
            assert_eq!(response.headers()["retry-after"], "1");
        }
        statuses.push(status);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        if status == 200 {
            lengths.push(ids(&body).len());
            let distinct: std::collections::BTreeSet<_> = ids(&body).into_iter().collect();
            assert_eq!(distinct.len(), 10);
        } else {
            assert_ne!(body["code"].as_u64(), Some(0));
        }
    }
    assert_eq!(statuses, [200, 429, 500, 200, 200, 429]);
    assert_eq!(lengths, [10, 11, 10]);
    let counters = simulator.counters();
    assert_eq!((counters.requests, counters.pages), (6, 3));
    assert_eq!((counters.too_many_requests, counters.server_errors, counters.duplicates), (2, 1, 1));
}

#[tokio::test]
async fn a_shift_moves_a_sale_over_the_boundary_between_two_pages() {
    let clock = Clock::fake(noon());
    let faults = FaultPlan { shift: Some(Every { first: 1, then: 0 }), ..FaultPlan::default() };
    let simulator = start(30, faults, &clock).await;
    let first = page(&simulator, 1, noon()).await;
    let second = page(&simulator, 2, noon()).await;
    assert_eq!(ids(&first).first(), Some(&"S-000001"));
    assert_eq!(ids(&first).last(), Some(&"S-000010"));
    assert_eq!(ids(&second).first(), Some(&"S-000012"), "S-000011 moved to page 1 after it was read");
    assert_eq!(simulator.counters().shifts, 1);
    assert_eq!(simulator.ledger()["S-000001"].updated_at, noon(), "what was changed is in the next window");
}

#[tokio::test]
async fn a_shop_that_sells_by_itself_stops_when_told() {
    let settings = SimulatorSettings {
        shop_name: "面馆".into(),
        shop_id: "shop-9".into(),
        api_key: KEY.into(),
        seed: 5,
        pace: Some(Duration::from_millis(1)),
        history: 10,
        history_span: Duration::from_secs(1),
        faults: FaultPlan::default(),
    };
    let simulator = Simulator::start(settings, Clock::system()).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while simulator.ledger().len() < 30 {
        ticks.tick().await;
    }
    simulator.stop_selling();
    let (ledger, last) = (simulator.ledger(), simulator.last_change());
    for _ in 0..20 {
        ticks.tick().await;
    }
    assert_eq!((simulator.ledger(), simulator.last_change()), (ledger, last));
    simulator.close().await;
}

#[tokio::test]
async fn a_scripted_vendor_answers_in_turn_and_remembers() {
    let vendor =
        Scripted::start_with(|request| Answer::json(404, &json!({"no": request.path()}))).await.unwrap();
    vendor.push(Answer::json(200, &json!({"a": 1})).header("x-one", "1").delay(Duration::from_millis(30)));
    vendor.push(Answer::json(200, &json!({"half": "of it"})).cut_after(5));
    vendor.push(Answer::dropped());
    vendor.push(Answer::endless(200, "text/plain", vec![b'x'; 1000]));
    let url = format!("{}/v1/things?q=a%20b", vendor.url());

    let started = std::time::Instant::now();
    let whole = client().post(&url).body("sent").send().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(whole.headers()["x-one"], "1");
    assert_eq!(whole.text().await.unwrap(), r#"{"a":1}"#);
    let half = client().get(&url).send().await.unwrap();
    assert_eq!(half.content_length(), Some(16));
    assert!(half.bytes().await.is_err(), "half a body is an error");
    assert!(client().get(&url).send().await.is_err(), "no answer is an error");
    let mut endless = client().get(&url).send().await.unwrap();
    let mut taken = 0;
    while taken < 50_000 {
        taken += endless.chunk().await.unwrap().unwrap().len();
    }
    drop(endless);
    assert_eq!(client().get(&url).send().await.unwrap().status(), 404, "the script answers after the queue");

    assert!(vendor.body_bytes() >= 50_000);
    assert_eq!(vendor.queued(), 0);
    let requests = vendor.requests();
    assert_eq!(requests.len(), 5);
    assert_eq!((requests[0].method.as_str(), requests[0].path()), ("POST", "/v1/things"));
    assert_eq!(requests[0].query("q").as_deref(), Some("a b"));
    assert_eq!(requests[0].header("content-length"), Some("4"));
    assert_eq!(&requests[0].body[..], b"sent");
    vendor.close().await;
}
