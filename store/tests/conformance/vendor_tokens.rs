//! `vendor_tokens`: one process asks, all read.

use std::time::Duration;

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use zhilian_sync_store::vendor_tokens::{Secrets, Turn, find, lease, purge, release, save};
use zhilian_sync_store::{Clock, Pool, Store};

const KEY: &str = "keruyun/0a1b2c3d";
const MINUTE: Duration = Duration::from_mins(1);

fn turn(worker: &'static str) -> Turn<'static> {
    Turn { key: KEY, worker }
}

fn secrets(token: &str) -> Secrets {
    Secrets::from([("token".to_owned(), SecretString::from(token))])
}

async fn token(store: &Store) -> Option<String> {
    find(store, KEY).await.unwrap().map(|kept| kept.secrets["token"].expose_secret().to_owned())
}

pub(crate) async fn a_token_is_read_back_and_is_nowhere_in_clear(store: Store) {
    assert!(find(&store, KEY).await.unwrap().is_none());
    assert!(lease(&store, turn("a"), MINUTE).await.unwrap());
    assert!(find(&store, KEY).await.unwrap().is_none(), "a lease is no token");
    let expires_at = store.clock().now() + TimeDelta::hours(2);
    assert!(save(&store, turn("a"), &secrets("tok-canary"), Some(expires_at)).await.unwrap());
    let kept = find(&store, KEY).await.unwrap().unwrap();
    assert_eq!(kept.secrets["token"].expose_secret(), "tok-canary");
    assert_eq!(kept.issued_at, store.clock().now());
    assert_eq!(kept.expires_at, Some(expires_at));
    let sealed = sealed(&store).await;
    assert!(!sealed.windows(6).any(|part| part == b"canary"));
    // Under another key it does not open.
    assert!(store.vault().open_map(&sealed, "vendor_tokens/other").is_err());
}

async fn sealed(store: &Store) -> Vec<u8> {
    const SEALED: &str = "SELECT sealed FROM vendor_tokens";
    match store.pool() {
        Pool::Postgres(pool) => sqlx::query_scalar(SEALED).fetch_one(pool).await.unwrap(),
        Pool::Sqlite { read, .. } => sqlx::query_scalar(SEALED).fetch_one(read).await.unwrap(),
    }
}

pub(crate) async fn one_of_many_has_the_turn(store: Store) {
    let asking: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let worker = format!("worker-{number}");
                lease(&store, Turn { key: KEY, worker: &worker }, MINUTE).await.unwrap()
            })
        })
        .collect();
    let mut taken = 0;
    for ask in asking {
        taken += u32::from(ask.await.unwrap());
    }
    assert_eq!(taken, 1);
}

pub(crate) async fn a_turn_ends_with_the_token_or_without_it(store: Store) {
    assert!(lease(&store, turn("a"), MINUTE).await.unwrap());
    assert!(!lease(&store, turn("b"), MINUTE).await.unwrap());
    release(&store, turn("b")).await.unwrap();
    assert!(!lease(&store, turn("b"), MINUTE).await.unwrap(), "only its holder ends a turn");
    release(&store, turn("a")).await.unwrap();
    assert!(lease(&store, turn("b"), MINUTE).await.unwrap());
    assert!(save(&store, turn("b"), &secrets("one"), None).await.unwrap());
    assert_eq!(token(&store).await.unwrap(), "one");
    assert!(lease(&store, turn("a"), MINUTE).await.unwrap());
    assert_eq!(token(&store).await.unwrap(), "one", "the old token is read while a new one is asked for");
}

pub(crate) async fn a_lease_that_ran_out_is_taken_over_and_its_holder_writes_nothing(store: Store) {
    assert!(lease(&store, turn("a"), MINUTE).await.unwrap());
    store.clock().advance(TimeDelta::seconds(60));
    assert!(lease(&store, turn("b"), MINUTE).await.unwrap());
    assert!(!save(&store, turn("a"), &secrets("late"), None).await.unwrap());
    release(&store, turn("a")).await.unwrap();
    assert!(save(&store, turn("b"), &secrets("in time"), None).await.unwrap());
    assert!(!save(&store, turn("b"), &secrets("twice"), None).await.unwrap(), "a turn ends with its token");
    assert_eq!(token(&store).await.unwrap(), "in time");
}

pub(crate) async fn tokens_that_ended_long_ago_are_purged(store: Store) {
    let clock: &Clock = store.clock();
    for (key, hours) in [("a", Some(1)), ("b", Some(100)), ("c", None)] {
        let turn = Turn { key, worker: "w" };
        assert!(lease(&store, turn, MINUTE).await.unwrap());
        let expires_at = hours.map(|hours| clock.now() + TimeDelta::hours(hours));
        assert!(save(&store, turn, &secrets("x"), expires_at).await.unwrap());
    }
    assert_eq!(purge(&store, clock.now(), 10).await.unwrap(), 0);
    clock.advance(TimeDelta::hours(2));
    assert_eq!(purge(&store, clock.now(), 1).await.unwrap(), 1, "a bite at a time");
    assert_eq!(purge(&store, clock.now(), 10).await.unwrap(), 1);
    assert!(find(&store, "b").await.unwrap().is_some(), "it has not ended");
}
