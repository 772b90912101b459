//! Loyverse, Square and Shopify: their admission, their parameters, their pages and their webhooks.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_simulator::{Simulator, WebhookTarget};

use crate::client::{Answered, Hand, ask, receiver, start};

async fn get(vendor: &Simulator, target: &str) -> Answered {
    let key = vendor.credentials()["api_key"].clone();
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("x-shopify-access-token", key.as_str())];
    ask(vendor.address(), ("GET", target), &headers, None).await.unwrap()
}

async fn post(vendor: &Simulator, target: &str, body: &Value) -> Answered {
    let bearer = format!("Bearer {}", vendor.credentials()["api_key"]);
    let headers = [("authorization", bearer.as_str())];
    ask(vendor.address(), ("POST", target), &headers, Some(body)).await.unwrap()
}

#[tokio::test]
async fn a_stranger_is_refused_and_so_is_a_key_that_was_renewed() {
    let hand = Hand::noon();
    for (name, target) in [
        ("loyverse", "/v1.0/receipts"),
        ("square", "/v2/payments"),
        ("shopify", "/admin/api/2025-07/orders.json"),
    ] {
        let vendor = start(name, &hand, |_| {}).await;
        let stranger = ask(vendor.address(), ("GET", target), &[], None).await.unwrap();
        assert_eq!((stranger.status, get(&vendor, target).await.status), (401, 200), "{name}");
        let key = vendor.credentials();
        vendor.expire_tokens();
        assert_ne!(vendor.credentials(), key);
        assert_eq!(vendor.counters().refused, 1);
    }
}

#[tokio::test]
async fn what_is_not_documented_is_refused() {
    let hand = Hand::noon();
    let vendor = start("loyverse", &hand, |_| {}).await;
    for query in
        ["limit=251", "limit=0", "page=2", "updated_at_min=yesterday", "cursor=cD0y", "limit=1&limit=2"]
    {
        let answered = get(&vendor, &format!("/v1.0/receipts?{query}")).await;
        assert_eq!(answered.status, 400, "{query}");
        assert!(answered.body["errors"][0]["code"].is_string(), "{query}");
    }
    let backwards = "updated_at_min=2026-01-02T00:00:00Z&updated_at_max=2026-01-01T00:00:00Z";
    assert_eq!(get(&vendor, &format!("/v1.0/receipts?{backwards}")).await.status, 400);
    assert_eq!(get(&vendor, "/v1.0/orders").await.status, 404);
    assert_eq!(vendor.counters().rejected, 8);

    let vendor = start("square", &hand, |_| {}).await;
    let sort = json!({"sort_field": "UPDATED_AT", "sort_order": "ASC"});
    for body in [
        json!({"query": {"sort": sort}}),
        json!({"location_ids": ["L9"], "query": {"sort": sort}}),
        json!({"location_ids": ["L1AAA"], "limit": 1001, "query": {"sort": sort}}),
        json!({"location_ids": ["L1AAA"], "query": {"sort": {"sort_field": "CREATED_AT", "sort_order": "ASC"}}}),
        json!({"location_ids": ["L1AAA"], "query": {"sort": sort, "filter": {"states": ["OPEN"]}}}),
    ] {
        assert_eq!(post(&vendor, "/v2/orders/search", &body).await.status, 400, "{body}");
    }
    let vendor = start("shopify", &hand, |_| {}).await;
    let first = get(&vendor, "/admin/api/2025-07/orders.json?status=any&limit=10").await;
    let next = next_of(&first);
    assert_eq!(get(&vendor, &format!("{next}&status=any")).await.status, 400, "beside page_info");
}

/// The path and query of the `Link` header.
fn next_of(answered: &Answered) -> String {
    let link = answered.header("link").unwrap();
    let address = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
    address[address.find("/admin").unwrap()..].to_owned()
}

#[tokio::test]
async fn pages_are_turned_to_the_end_and_hold_each_record_once() {
    let hand = Hand::noon();
    let vendor = start("loyverse", &hand, |_| {}).await;
    let (mut found, mut query) = (Vec::new(), "limit=7".to_owned());
    loop {
        let page = get(&vendor, &format!("/v1.0/receipts?{query}")).await;
        found.extend(page.ids("receipts", "receipt_number"));
        let Some(cursor) = page.body["cursor"].as_str() else { break };
        query = format!("limit=7&cursor={cursor}");
    }
    assert_eq!(found, vendor.ledger("receipts").into_keys().collect::<Vec<_>>());

    let vendor = start("shopify", &hand, |_| {}).await;
    let (mut found, mut target) =
        (Vec::new(), "/admin/api/2025-07/orders.json?status=any&limit=7".to_owned());
    loop {
        let page = get(&vendor, &target).await;
        found.extend(page.ids("orders", "id"));
        if page.header("link").is_none() {
            break;
        }
        target = next_of(&page);
    }
    found.sort();
    assert_eq!(found, vendor.ledger("orders").into_keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn square_lists_in_the_order_of_change_and_forgets_cursors() {
    let hand = Hand::noon();
    let vendor = start("square", &hand, |_| {}).await;
    let mut body = json!({
        "location_ids": ["L1AAA", "L2BBB"], "limit": 20, "return_entries": false,
        "query": {
            "filter": {"state_filter": {"states": ["COMPLETED", "CANCELED"]}},
            "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
        },
    });
    let first = post(&vendor, "/v2/orders/search", &body).await;
    hand.advance(TimeDelta::seconds(10));
    let changed = first.ids("orders", "id")[0].clone();
    assert!(vendor.change("orders", &changed));
    body["cursor"] = first.body["cursor"].clone();
    let second = post(&vendor, "/v2/orders/search", &body).await;
    assert_eq!(second.ids("orders", "id").len(), 11);
    assert_eq!(second.ids("orders", "id").last(), Some(&changed), "a change moves an order to the end");
    assert!(second.body.get("cursor").is_none());
    hand.advance(TimeDelta::minutes(6));
    assert_eq!(post(&vendor, "/v2/orders/search", &body).await.status, 400);
    let one = get(&vendor, &format!("/v2/orders/{changed}")).await;
    assert_eq!(one.body["order"]["id"], changed.as_str());
    let none = json!({"query": {"filter": {"updated_at": {"start_at": "2030-01-01T00:00:00Z"}}}});
    assert_eq!(post(&vendor, "/v2/customers/search", &none).await.body, json!({}));
}

#[tokio::test]
async fn changes_are_posted_signed_and_again_until_they_are_taken() {
    let hand = Hand::noon();
    for (name, stream, header) in [
        ("loyverse", "receipts", "x-loyverse-signature"),
        ("square", "orders", "x-square-hmacsha256-signature"),
        ("shopify", "orders", "x-shopify-hmac-sha256"),
    ] {
        let vendor = start(name, &hand, |_| {}).await;
        let (address, taken) = receiver().await;
        let url = format!("http://{address}/hook?system=1").parse().unwrap();
        vendor.post_webhooks(WebhookTarget { url, secret: "s3cret".into() });
        let id = vendor.add(stream).unwrap();
        vendor.all_posted().await;
        let taken = taken.lock().unwrap().clone();
        assert_eq!(taken.len(), 2, "{name}: the first delivery was refused");
        assert!(taken[0].body.contains(&id) && taken[0].target == "/hook?system=1", "{name}");
        assert_eq!(taken[0].body, taken[1].body);
        assert!(!taken[0].header(header).is_empty(), "{name}: {:?}", taken[0].headers);
        let counted = vendor.webhook_counters();
        assert_eq!((counted.events, counted.accepted, counted.refused), (1, 1, 1), "{name}");
    }
}
