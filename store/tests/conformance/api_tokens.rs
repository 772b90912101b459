//! `api_tokens`: what machines sign their requests with.

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use zhilian_sync_store::api_tokens::{
    ApiToken, Filter, NewApiToken, find, find_live, insert, list, revoke, touch,
};
use zhilian_sync_store::{Role, Store, passwords};

use super::support::at;

/// A token for an hour.
async fn token(store: &Store, name: &str, store_id: Option<&str>) -> (ApiToken, SecretString) {
    let (text, token_hash) = passwords::new_api_token();
    let expires_at = Some(store.clock().now() + TimeDelta::hours(1));
    let new = NewApiToken { name, token_hash, role: Role::Staff, store_id, created_by: None, expires_at };
    let mut tx = store.begin().await.unwrap();
    let token = insert(&mut tx, store.clock(), new).await.unwrap();
    tx.commit().await.unwrap();
    (token, text)
}

async fn live(store: &Store, text: &SecretString) -> Option<ApiToken> {
    let hash = passwords::token_hash(text.expose_secret());
    find_live(store, &hash, store.clock().now()).await.unwrap()
}

pub(crate) async fn a_token_lives_until_it_is_revoked_or_over(store: Store) {
    let (made, text) = token(&store, "till", Some("A")).await;
    assert_eq!((made.name.as_str(), made.role, made.store_id.as_deref()), ("till", Role::Staff, Some("A")));
    assert_eq!((made.created_at, made.expires_at, made.last_used_at), (at(0), Some(at(3_600)), None));
    assert_eq!(live(&store, &text).await, Some(made.clone()));
    assert_eq!(live(&store, &SecretString::from("zls_guessed")).await, None);

    let (second, revoked) = token(&store, "other", None).await;
    let mut tx = store.begin().await.unwrap();
    let ended = revoke(&mut tx, store.clock(), second.id).await.unwrap().unwrap();
    assert_eq!(ended.revoked_at, Some(at(0)));
    assert_eq!(revoke(&mut tx, store.clock(), second.id).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(live(&store, &revoked).await, None);
    assert_eq!(find(&store, second.id).await.unwrap(), Some(ended));

    store.clock().advance(TimeDelta::minutes(59));
    assert!(live(&store, &text).await.is_some());
    store.clock().advance(TimeDelta::minutes(1));
    assert_eq!(live(&store, &text).await, None);
}

pub(crate) async fn being_used_is_noted_once_a_minute(store: Store) {
    let (_, text) = token(&store, "till", None).await;
    for (advance, used) in [(30, 30), (60, 30), (1, 91), (59, 91), (2, 152)] {
        store.clock().advance(TimeDelta::seconds(advance));
        touch(&store, &live(&store, &text).await.unwrap()).await.unwrap();
        assert_eq!(live(&store, &text).await.unwrap().last_used_at, Some(at(used)));
    }
}

pub(crate) async fn tokens_are_listed_newest_first_within_the_callers_scope(store: Store) {
    for (name, store_id) in [("a", Some("A")), ("b", Some("B")), ("c", None), ("d", Some("A"))] {
        token(&store, name, store_id).await;
        store.clock().advance(TimeDelta::seconds(1));
    }
    let names = async |filter: Filter<'_>| -> String {
        list(&store, &filter).await.unwrap().into_iter().map(|token| token.name).collect()
    };
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(names(all.clone()).await, "dcba");
    assert_eq!(names(Filter { scope: Some("A"), ..all.clone() }).await, "da");
    assert_eq!(names(Filter { store_id: Some("B"), ..all.clone() }).await, "b");
    assert_eq!(names(Filter { role: Some(Role::Admin), ..all.clone() }).await, "");
    let page = list(&store, &Filter { limit: 2, ..all.clone() }).await.unwrap();
    let after = page.last().map(|token| (token.created_at, token.id));
    assert_eq!(names(Filter { after, ..all }).await, "ba");
}
