//! `rate_budgets`: one budget for all workers.

use std::time::Duration;

use chrono::TimeDelta;
use zhilian_sync_store::Store;
use zhilian_sync_store::rate_budgets::{Budget, Grant, block, give_back, purge, take, take_all};

/// Ten a second, three at once.
const BUDGET: Budget<'static> = Budget { key: "square/7/orders", requests: 10, per_ms: 1_000, burst: 3 };

pub(crate) async fn a_budget_grants_its_burst_and_then_makes_wait(store: Store) {
    for _ in 0..3 {
        assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    }
    let Grant::Wait(wait) = take(&store, &BUDGET).await.unwrap() else { panic!("the burst is over") };
    assert_eq!(wait, Duration::from_millis(100));
    let other = Budget { key: "square/8/orders", ..BUDGET };
    assert_eq!(take(&store, &other).await.unwrap(), Grant::Granted, "budgets are apart");

    // Whoever waits as long as told is granted.
    for _ in 0..20 {
        store.clock().advance(TimeDelta::milliseconds(99));
        assert!(matches!(take(&store, &BUDGET).await.unwrap(), Grant::Wait(_)));
        store.clock().advance(TimeDelta::milliseconds(1));
        assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    }
    store.clock().advance(TimeDelta::hours(1));
    for _ in 0..3 {
        assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    }
    assert!(matches!(take(&store, &BUDGET).await.unwrap(), Grant::Wait(_)), "an idle hour saves up no more");
}

pub(crate) async fn many_workers_together_never_exceed_a_budget(store: Store) {
    let mut granted = 0;
    // A second in ten steps, eight workers asking in each.
    for _ in 0..10 {
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { take(&store, &BUDGET).await.unwrap() })
            })
            .collect();
        for ask in asking {
            granted += u32::from(ask.await.unwrap() == Grant::Granted);
        }
        store.clock().advance(TimeDelta::milliseconds(100));
    }
    assert_eq!(granted, 12, "the burst of 3 and 9 more");
}

pub(crate) async fn a_blocked_budget_makes_everybody_wait(store: Store) {
    block(&store, &BUDGET, Duration::from_secs(30)).await.unwrap();
    block(&store, &BUDGET, Duration::from_secs(1)).await.unwrap();
    let Grant::Wait(wait) = take(&store, &BUDGET).await.unwrap() else { panic!("the vendor said 429") };
    assert_eq!(wait, Duration::from_secs(30), "the longer block stays");
    store.clock().advance(TimeDelta::seconds(30));
    assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    assert!(matches!(take(&store, &BUDGET).await.unwrap(), Grant::Wait(_)), "and no burst after it");
}

pub(crate) async fn several_budgets_are_spent_together_or_not_at_all(store: Store) {
    let narrow = Budget { key: "a", requests: 1, per_ms: 60_000, burst: 1 };
    let wide = Budget { key: "b", requests: 1, per_ms: 1_000, burst: 2 };
    assert_eq!(take_all(&store, &[wide, narrow]).await.unwrap(), Grant::Granted);
    for _ in 0..3 {
        let Grant::Wait(wait) = take_all(&store, &[wide, narrow]).await.unwrap() else {
            panic!("`a` is spent")
        };
        assert_eq!(wait, Duration::from_mins(1));
    }
    assert_eq!(take(&store, &wide).await.unwrap(), Grant::Granted, "what was refused spent nothing of `b`");
    let Grant::Wait(wait) = take_all(&store, &[narrow, wide]).await.unwrap() else {
        panic!("both are spent")
    };
    assert_eq!(wait, Duration::from_mins(1), "the longer of the two");

    let mut tx = store.begin().await.unwrap();
    give_back(&mut tx, store.clock(), &[wide, narrow]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(take_all(&store, &[narrow, wide]).await.unwrap(), Grant::Granted);
    assert!(matches!(take_all(&store, &[narrow, wide]).await.unwrap(), Grant::Wait(_)));
}

pub(crate) async fn a_budget_that_is_whole_again_leaves_no_row(store: Store) {
    assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    let later = store.clock().now() + TimeDelta::hours(1);
    assert_eq!(purge(&store, later).await.unwrap(), 0, "it is not whole yet");
    store.clock().advance(TimeDelta::hours(1));
    assert_eq!(purge(&store, store.clock().now() - TimeDelta::hours(2)).await.unwrap(), 0);
    assert_eq!(purge(&store, store.clock().now()).await.unwrap(), 1);
    for _ in 0..3 {
        assert_eq!(take(&store, &BUDGET).await.unwrap(), Grant::Granted);
    }
}
