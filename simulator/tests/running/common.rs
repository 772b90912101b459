//! What holds for every vendor, shown at Loyverse: faults and counters, the ledger, changes of themselves.

use std::time::Duration;

use chrono::TimeDelta;
use zhilian_sync_simulator::{Every, Faults, Settings, Simulator, names};

use crate::client::{Answered, Hand, ask, start};

async fn receipts(vendor: &Simulator, query: &str) -> Option<Answered> {
    let authorization = format!("Bearer {}", vendor.credentials()["api_key"]);
    let target = format!("/v1.0/receipts?{query}");
    ask(vendor.address(), ("GET", &target), &[("authorization", &authorization)], None).await
}

#[tokio::test]
async fn an_unknown_vendor_is_told_which_there_are() {
    let error = Simulator::start("acme", Settings::default()).await.unwrap_err();
    assert!(error.to_string().contains("`acme`") && error.to_string().contains("loyverse"), "{error}");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_records_of_every_vendor() {
    let hand = Hand::noon();
    for name in names() {
        let (one, same, other) = (
            start(name, &hand, |_| {}).await,
            start(name, &hand, |_| {}).await,
            start(name, &hand, |settings| settings.seed = 2).await,
        );
        for stream in one.streams() {
            assert_eq!(one.ledger(stream).len(), 30, "{name} {stream}");
            assert_eq!(one.ledger(stream), same.ledger(stream), "{name} {stream}");
            assert_ne!(one.ledger(stream), other.ledger(stream), "{name} {stream}");
        }
    }
}

#[tokio::test]
async fn each_fault_comes_at_its_occasion_and_is_counted() {
    let hand = Hand::noon();
    let faults = Faults {
        too_many_requests: Some(Every::once(1)),
        retry_after: Duration::from_secs(7),
        server_error: Some(Every::once(2)),
        cut: Some(Every::once(3)),
        duplicate: Some(Every::once(1)),
        change: Some(Every::once(2)),
        ..Faults::default()
    };
    let vendor = start("loyverse", &hand, |settings| settings.faults = faults).await;
    let limited = receipts(&vendor, "limit=10").await.unwrap();
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
    assert_eq!(receipts(&vendor, "limit=10").await.unwrap().status, 500);
    assert!(receipts(&vendor, "limit=10").await.is_none(), "the third answer breaks off");
    let before = vendor.ledger("receipts");
    hand.advance(TimeDelta::seconds(1));
    let page = receipts(&vendor, "limit=10").await.unwrap();
    assert_eq!(page.ids("receipts", "receipt_number").len(), 10);
    assert_ne!(vendor.ledger("receipts"), before, "a record of the page changed after it was served");
    let counters = vendor.counters();
    assert_eq!((counters.too_many_requests, counters.server_errors, counters.cut), (1, 1, 1));
    // The answer that broke off was the first page with records.
    assert_eq!((counters.duplicates, counters.changes_between_pages, counters.pages), (1, 1, 2));
    assert_eq!(vendor.served("receipts")["1-1001"], 3);
}

#[tokio::test]
async fn it_changes_of_itself_until_it_is_told_to_stop() {
    let hand = Hand::noon();
    let vendor = start("loyverse", &hand, |settings| settings.pace = Some(Duration::from_millis(1))).await;
    let before = vendor.ledger("receipts").len();
    while vendor.ledger("receipts").len() < before + 5 {
        tokio::task::yield_now().await;
    }
    vendor.stop_changing();
    let stopped = vendor.last_change();
    hand.advance(TimeDelta::seconds(1));
    receipts(&vendor, "").await.unwrap();
    assert_eq!(vendor.last_change(), stopped);
    vendor.close().await;
}

#[tokio::test]
async fn a_record_is_changed_voided_and_refunded_by_hand() {
    let hand = Hand::noon();
    let vendor = start("loyverse", &hand, |_| {}).await;
    let (one, other) = (vendor.add("receipts").unwrap(), vendor.add("receipts").unwrap());
    let total = vendor.ledger("receipts")[&one].total;
    assert!(vendor.change("receipts", &one) && vendor.ledger("receipts")[&one].total < total);
    let refund = vendor.refund("receipts", &one).unwrap();
    assert!(vendor.void("receipts", &other) && !vendor.change("receipts", &other));
    let ledger = vendor.ledger("receipts");
    assert_eq!((ledger[&refund].kind, ledger[&other].kind), ("refund", "void"));
    assert_eq!(ledger[&refund].total, ledger[&one].total);
    let member = vendor.add("customers").unwrap();
    assert!(vendor.delete("customers", &member) && vendor.ledger("customers")[&member].deleted);
    assert!(!vendor.delete("receipts", &one) && vendor.add("bills").is_none());
}
