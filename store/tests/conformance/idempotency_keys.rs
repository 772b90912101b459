//! `idempotency_keys`: a repeated request gets the first one's answer.

use chrono::TimeDelta;
use zhilian_sync_store::idempotency_keys::{Begun, Request, begin, find, finish, purge};
use zhilian_sync_store::{Store, StoreError};

const DAY: TimeDelta = TimeDelta::hours(24);
const REQUEST: Request<'static> = Request { scope: "POST /systems wang", key: "k-1", hash: &[1; 32] };

/// Takes the key and, if it is new, answers.
async fn ask(store: &Store, request: Request<'_>, answer: &str) -> Begun {
    let mut tx = store.begin().await.unwrap();
    let begun = begin(&mut tx, store.clock(), request, DAY).await.unwrap();
    if begun == Begun::New {
        finish(&mut tx, request.scope, request.key, 200, answer).await.unwrap();
    }
    tx.commit().await.unwrap();
    begun
}

fn answered(response: &str) -> Begun {
    Begun::Answered { status: 200, response: response.to_owned() }
}

pub(crate) async fn a_repeated_request_gets_the_first_answer(store: Store) {
    assert_eq!(ask(&store, REQUEST, "first").await, Begun::New);
    assert_eq!(ask(&store, REQUEST, "second").await, answered("first"));
    assert_eq!(ask(&store, Request { hash: &[2; 32], ..REQUEST }, "third").await, Begun::OtherRequest);
    assert_eq!(ask(&store, Request { scope: "POST /systems li", ..REQUEST }, "x").await, Begun::New);
    assert_eq!(ask(&store, Request { key: "k-2", ..REQUEST }, "x").await, Begun::New);
    let kept = find(&store, REQUEST.scope, REQUEST.key).await.unwrap().unwrap();
    assert_eq!((kept.status, kept.response.as_deref()), (Some(200), Some("first")));

    let mut tx = store.begin().await.unwrap();
    let error = finish(&mut tx, REQUEST.scope, REQUEST.key, 500, "no").await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "an answer is given once: {error:?}");
}

pub(crate) async fn a_failed_request_leaves_no_key(store: Store) {
    let mut tx = store.begin().await.unwrap();
    assert_eq!(begin(&mut tx, store.clock(), REQUEST, DAY).await.unwrap(), Begun::New);
    drop(tx);
    assert_eq!(find(&store, REQUEST.scope, REQUEST.key).await.unwrap(), None);

    // One that was committed without an answer is being worked on by somebody.
    let mut tx = store.begin().await.unwrap();
    begin(&mut tx, store.clock(), REQUEST, DAY).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ask(&store, REQUEST, "x").await, Begun::InProgress);
}

pub(crate) async fn of_two_at_once_the_second_gets_the_first_ones_answer(store: Store) {
    let mut tx = store.begin().await.unwrap();
    assert_eq!(begin(&mut tx, store.clock(), REQUEST, DAY).await.unwrap(), Begun::New);
    let second = tokio::spawn({
        let store = store.clone();
        async move { ask(&store, REQUEST, "second").await }
    });
    // The second can only wait, for the row or for the writer's turn.
    tokio::task::yield_now().await;
    finish(&mut tx, REQUEST.scope, REQUEST.key, 200, "first").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), answered("first"));
}

pub(crate) async fn an_expired_key_may_be_used_anew(store: Store) {
    assert_eq!(ask(&store, REQUEST, "first").await, Begun::New);
    store.clock().advance(DAY - TimeDelta::milliseconds(1));
    assert_eq!(ask(&store, REQUEST, "second").await, answered("first"));
    assert_eq!(purge(&store).await.unwrap(), 0);
    store.clock().advance(TimeDelta::milliseconds(1));
    assert_eq!(ask(&store, Request { hash: &[9; 32], ..REQUEST }, "anew").await, Begun::New);
    assert_eq!(ask(&store, Request { hash: &[9; 32], ..REQUEST }, "x").await, answered("anew"));

    store.clock().advance(DAY);
    assert_eq!(purge(&store).await.unwrap(), 1);
    assert_eq!(find(&store, REQUEST.scope, REQUEST.key).await.unwrap(), None);
}
