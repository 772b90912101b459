//! `users`: people who sign in.

use zhilian_sync_store::users::{
    NewUser, User, count, count_within, find_by_username, get, insert, list, set_active, set_password,
    touch_login,
};
use zhilian_sync_store::{Role, Store, StoreError, UserId};

use super::sessions::{is_live, sign_in};
use super::support::at;

pub(crate) async fn user(store: &Store, username: &str) -> User {
    let new = NewUser { username, password_hash: "$argon2id$first", role: Role::Staff, store_id: Some("A") };
    let mut tx = store.begin().await.unwrap();
    let user = insert(&mut tx, store.clock(), new).await.unwrap();
    tx.commit().await.unwrap();
    user
}

pub(crate) async fn a_name_is_one_person_in_any_case(store: Store) {
    let made = user(&store, " Xiao.Wang ").await;
    assert_eq!(made.username, "xiao.wang");
    assert_eq!((made.role, made.store_id.as_deref(), made.active), (Role::Staff, Some("A"), true));
    assert_eq!((made.created_at, made.last_login_at), (at(0), None));
    assert_eq!(find_by_username(&store, "XIAO.WANG").await.unwrap(), Some(made.clone()));
    assert_eq!(find_by_username(&store, "wang").await.unwrap(), None);
    assert_eq!(get(&store, made.id).await.unwrap(), made);
    assert!(!format!("{made:?}").contains("argon2"), "a hash belongs in no log");

    let mut tx = store.begin().await.unwrap();
    touch_login(&mut tx, store.clock(), made.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(get(&store, made.id).await.unwrap().last_login_at, Some(at(0)));
}

pub(crate) async fn a_taken_name_is_a_conflict_and_the_transaction_lives_on(store: Store) {
    user(&store, "admin").await;
    let mut tx = store.begin().await.unwrap();
    let again = NewUser { username: "Admin", password_hash: "x", role: Role::Admin, store_id: None };
    let error = insert(&mut tx, store.clock(), again).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("`admin` is taken")), "{error:?}");
    insert(&mut tx, store.clock(), NewUser { username: "other", ..again }).await.unwrap();
    assert_eq!(count_within(&mut tx).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(count(&store).await.unwrap(), 2);
}

pub(crate) async fn a_new_password_ends_every_session(store: Store) {
    let (wang, li) = (user(&store, "wang").await, user(&store, "li").await);
    let sessions = [sign_in(&store, wang.id).await, sign_in(&store, wang.id).await];
    let other = sign_in(&store, li.id).await;
    store.clock().advance(chrono::TimeDelta::minutes(1));

    let mut tx = store.begin().await.unwrap();
    set_password(&mut tx, store.clock(), wang.id, "$argon2id$second").await.unwrap();
    tx.commit().await.unwrap();
    let changed = get(&store, wang.id).await.unwrap();
    assert_eq!((changed.password_hash.as_str(), changed.password_changed_at), ("$argon2id$second", at(60)));
    for session in sessions {
        assert!(!is_live(&store, &session).await);
    }
    assert!(is_live(&store, &other).await);

    let mut tx = store.begin().await.unwrap();
    let nobody = UserId(store.clock().new_id());
    let error = set_password(&mut tx, store.clock(), nobody, "x").await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error:?}");
}

pub(crate) async fn somebody_kept_out_has_no_session(store: Store) {
    let wang = user(&store, "wang").await;
    let session = sign_in(&store, wang.id).await;
    for active in [false, true] {
        let mut tx = store.begin().await.unwrap();
        set_active(&mut tx, store.clock(), wang.id, active).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(get(&store, wang.id).await.unwrap().active, active);
        assert!(!is_live(&store, &session).await, "nor does it come back with the person");
    }
}

pub(crate) async fn users_are_listed_by_name(store: Store) {
    for name in ["c", "a", "d", "b"] {
        user(&store, name).await;
    }
    let names = async |after, limit| -> Vec<String> {
        list(&store, after, limit).await.unwrap().into_iter().map(|user| user.username).collect()
    };
    assert_eq!(names(None, 3).await, ["a", "b", "c"]);
    assert_eq!(names(Some("c"), 3).await, ["d"]);
}
