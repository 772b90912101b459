//! `idempotency_keys`: a repeated request gets the first one's answer.

use chrono::TimeDelta;
use zhilian_sync_store::Store;
use zhilian_sync_store::idempotency_keys::{Begun, Kept, Request, begin, find, finish, purge, release};

const MINUTE: TimeDelta = TimeDelta::minutes(1);
const DAY: TimeDelta = TimeDelta::hours(24);
const REQUEST: Request<'static> = Request { scope: "wang create_system", key: "k-1", hash: &[1; 32] };

/// Takes the key and, if it is new, answers; says whether it was new.
async fn ask(store: &Store, request: Request<'_>, answer: &str) -> Begun {
    let begun = begin(store, request, MINUTE).await.unwrap();
    if let Begun::New(at) = begun {
        let kept = Kept { status: 200, response: answer, ttl: DAY };
        assert!(finish(store, request, at, kept).await.unwrap());
    }
    begun
}

fn is_new(begun: &Begun) -> bool {
    matches!(begun, Begun::New(_))
}

fn answered(response: &str) -> Begun {
    Begun::Answered { status: 200, response: response.to_owned() }
}

pub(crate) async fn a_repeated_request_gets_the_first_answer(store: Store) {
    assert!(is_new(&ask(&store, REQUEST, "first").await));
    assert_eq!(ask(&store, REQUEST, "second").await, answered("first"));
    assert_eq!(ask(&store, Request { hash: &[2; 32], ..REQUEST }, "third").await, Begun::OtherRequest);
    assert!(is_new(&ask(&store, Request { scope: "li create_system", ..REQUEST }, "x").await));
    assert!(is_new(&ask(&store, Request { key: "k-2", ..REQUEST }, "x").await));
    let kept = find(&store, REQUEST.scope, REQUEST.key).await.unwrap().unwrap();
    assert_eq!((kept.status, kept.response.as_deref()), (Some(200), Some("first")));
}

pub(crate) async fn a_failed_request_leaves_no_key(store: Store) {
    let Begun::New(at) = begin(&store, REQUEST, MINUTE).await.unwrap() else { panic!() };
    assert_eq!(begin(&store, REQUEST, MINUTE).await.unwrap(), Begun::InProgress);
    release(&store, REQUEST, at).await.unwrap();
    assert_eq!(find(&store, REQUEST.scope, REQUEST.key).await.unwrap(), None);
    assert!(is_new(&ask(&store, REQUEST, "first").await));
    // An answer is not given up.
    release(&store, REQUEST, at).await.unwrap();
    assert_eq!(ask(&store, REQUEST, "second").await, answered("first"));
}

pub(crate) async fn of_two_at_once_one_does_the_work(store: Store) {
    let asking = || {
        let store = store.clone();
        tokio::spawn(async move { begin(&store, REQUEST, MINUTE).await.unwrap() })
    };
    let (one, other) = (asking(), asking());
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert!(is_new(&one) != is_new(&other), "{one:?} {other:?}");
    assert!([one, other].contains(&Begun::InProgress));
}

pub(crate) async fn a_key_of_one_who_died_is_soon_another_ones(store: Store) {
    let Begun::New(dead) = begin(&store, REQUEST, MINUTE).await.unwrap() else { panic!() };
    store.clock().advance(MINUTE);
    let Begun::New(alive) = begin(&store, REQUEST, MINUTE).await.unwrap() else { panic!() };
    // The first comes back after all: its answer is not kept, and it does not give up the other's key.
    let late = Kept { status: 200, response: "late", ttl: DAY };
    assert!(!finish(&store, REQUEST, dead, late).await.unwrap());
    release(&store, REQUEST, dead).await.unwrap();
    assert!(finish(&store, REQUEST, alive, Kept { response: "alive", ..late }).await.unwrap());
    assert_eq!(ask(&store, REQUEST, "x").await, answered("alive"));
}

pub(crate) async fn an_expired_key_may_be_used_anew(store: Store) {
    assert!(is_new(&ask(&store, REQUEST, "first").await));
    store.clock().advance(DAY - TimeDelta::milliseconds(1));
    assert_eq!(ask(&store, REQUEST, "second").await, answered("first"));
    assert_eq!(purge(&store).await.unwrap(), 0);
    store.clock().advance(TimeDelta::milliseconds(1));
    assert!(is_new(&ask(&store, Request { hash: &[9; 32], ..REQUEST }, "anew").await));
    assert_eq!(ask(&store, Request { hash: &[9; 32], ..REQUEST }, "x").await, answered("anew"));

    store.clock().advance(DAY);
    assert_eq!(purge(&store).await.unwrap(), 1);
    assert_eq!(find(&store, REQUEST.scope, REQUEST.key).await.unwrap(), None);
}
