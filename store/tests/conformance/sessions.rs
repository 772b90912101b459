//! `sessions`: who is signed in where.

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use zhilian_sync_store::sessions::{
    NewSession, end, end_all_of_user, end_of_user, find_live, insert, is_known_from, list_of_user, purge,
    touch,
};
use zhilian_sync_store::{SessionId, Store, UserId, passwords};

use super::support::at;
use super::users::user;

/// Opens a session for an hour.
pub(crate) async fn sign_in(store: &Store, user_id: UserId) -> SecretString {
    let (token, token_hash) = passwords::new_token();
    let expires_at = store.clock().now() + TimeDelta::hours(1);
    let new = NewSession { user_id, token_hash, address: Some("127.0.0.1"), user_agent: None, expires_at };
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, store.clock(), new).await.unwrap();
    tx.commit().await.unwrap();
    token
}

pub(crate) async fn is_live(store: &Store, token: &SecretString) -> bool {
    let hash = passwords::token_hash(token.expose_secret());
    find_live(store, &hash, store.clock().now()).await.unwrap().is_some()
}

/// The id of a live session.
pub(crate) async fn session_of(store: &Store, token: &SecretString) -> SessionId {
    let hash = passwords::token_hash(token.expose_secret());
    find_live(store, &hash, store.clock().now()).await.unwrap().unwrap().session_id
}

pub(crate) async fn a_session_lives_until_it_ends_or_expires(store: Store) {
    let wang = user(&store, "wang").await;
    let (first, second) = (sign_in(&store, wang.id).await, sign_in(&store, wang.id).await);
    let hash = passwords::token_hash(first.expose_secret());
    let live = find_live(&store, &hash, at(0)).await.unwrap().unwrap();
    assert_eq!(live.user, wang);
    assert_eq!((live.session_seen_at, live.session_expires_at), (at(0), at(3_600)));
    assert!(!is_live(&store, &SecretString::from("guessed")).await);

    let mut tx = store.begin().await.unwrap();
    assert!(end(&mut tx, store.clock(), live.session_id).await.unwrap());
    assert!(!end(&mut tx, store.clock(), live.session_id).await.unwrap());
    tx.commit().await.unwrap();
    assert!(!is_live(&store, &first).await);
    store.clock().advance(TimeDelta::minutes(59));
    assert!(is_live(&store, &second).await);
    store.clock().advance(TimeDelta::minutes(1));
    assert!(!is_live(&store, &second).await);
}

pub(crate) async fn being_seen_is_noted_once_a_minute(store: Store) {
    let wang = user(&store, "wang").await;
    let token = sign_in(&store, wang.id).await;
    let hash = passwords::token_hash(token.expose_secret());
    for (advance, seen) in [(30, 0), (31, 61), (59, 61), (2, 122)] {
        store.clock().advance(TimeDelta::seconds(advance));
        let now = store.clock().now();
        let live = find_live(&store, &hash, now).await.unwrap().unwrap();
        touch(&store, &live).await.unwrap();
        let live = find_live(&store, &hash, now).await.unwrap().unwrap();
        assert_eq!(live.session_seen_at, at(seen));
    }
}

pub(crate) async fn ending_one_session_leaves_the_others(store: Store) {
    let (wang, li) = (user(&store, "wang").await, user(&store, "li").await);
    let theirs = sign_in(&store, li.id).await;
    sign_in(&store, wang.id).await;
    sign_in(&store, wang.id).await;
    let mut tx = store.begin().await.unwrap();
    assert_eq!(end_all_of_user(&mut tx, store.clock(), wang.id).await.unwrap(), 2);
    assert_eq!(end_all_of_user(&mut tx, store.clock(), wang.id).await.unwrap(), 0);
    tx.commit().await.unwrap();
    assert!(is_live(&store, &theirs).await);
}

pub(crate) async fn old_sessions_are_purged(store: Store) {
    let wang = user(&store, "wang").await;
    let ended = sign_in(&store, wang.id).await;
    let hash = passwords::token_hash(ended.expose_secret());
    let live = find_live(&store, &hash, at(0)).await.unwrap().unwrap();
    let mut tx = store.begin().await.unwrap();
    end(&mut tx, store.clock(), live.session_id).await.unwrap();
    tx.commit().await.unwrap();
    sign_in(&store, wang.id).await;
    store.clock().advance(TimeDelta::minutes(10));
    let young = sign_in(&store, wang.id).await;

    assert_eq!(purge(&store, at(1)).await.unwrap(), 1, "the one that was ended");
    assert_eq!(purge(&store, at(3_601)).await.unwrap(), 1, "the one that expired");
    assert_eq!(purge(&store, at(3_601)).await.unwrap(), 0);
    assert!(is_live(&store, &young).await);
}

pub(crate) async fn open_sessions_are_listed_newest_first(store: Store) {
    let (wang, li) = (user(&store, "wang").await, user(&store, "li").await);
    sign_in(&store, li.id).await;
    let mut made = Vec::new();
    for _ in 0..4 {
        let token = sign_in(&store, wang.id).await;
        made.push(session_of(&store, &token).await);
        store.clock().advance(TimeDelta::seconds(1));
    }
    made.reverse();
    let mut tx = store.begin().await.unwrap();
    assert!(!end_of_user(&mut tx, store.clock(), li.id, made[0]).await.unwrap(), "it is somebody else's");
    assert!(end_of_user(&mut tx, store.clock(), wang.id, made[0]).await.unwrap());
    assert!(!end_of_user(&mut tx, store.clock(), wang.id, made[0]).await.unwrap());
    tx.commit().await.unwrap();
    let page = list_of_user(&store, wang.id, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|one| one.id).collect::<Vec<_>>(), made[1..3]);
    let before = page.last().map(|last| (last.created_at, last.id));
    let rest = list_of_user(&store, wang.id, before, 10).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.id).collect::<Vec<_>>(), made[3..]);
    store.clock().advance(TimeDelta::hours(1));
    assert_eq!(list_of_user(&store, wang.id, None, 10).await.unwrap(), [], "they are over");
}

pub(crate) async fn an_address_is_known_to_who_signed_in_from_it(store: Store) {
    let wang = user(&store, "wang").await;
    user(&store, "li").await;
    sign_in(&store, wang.id).await;
    assert!(is_known_from(&store, " Wang", "127.0.0.1").await.unwrap());
    assert!(!is_known_from(&store, "wang", "127.0.0.2").await.unwrap());
    assert!(!is_known_from(&store, "li", "127.0.0.1").await.unwrap());
    assert!(!is_known_from(&store, "nobody", "127.0.0.1").await.unwrap());
}
