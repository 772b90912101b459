//! `users`: people who sign in.

use zhilian_sync_store::users::{
    Changed, Filter, NewUser, Standing, User, admit, change, change_password, count, count_within,
    find_by_username, get, insert, list, list_newest, set_password,
};
use zhilian_sync_store::{Role, Store, StoreError, UserId};

use super::sessions::{is_live, session_of, sign_in};
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
    let admitted = admit(&mut tx, store.clock(), &made).await.unwrap().unwrap();
    assert_eq!(admitted.last_login_at, Some(at(0)));
    let stale = User { password_hash: "another".to_owned(), ..made.clone() };
    assert_eq!(
        admit(&mut tx, store.clock(), &stale).await.unwrap(),
        None,
        "the password was changed meanwhile"
    );
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
    assert_eq!(set_password(&mut tx, store.clock(), wang.id, "$argon2id$second").await.unwrap(), 2);
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

pub(crate) async fn an_own_new_password_keeps_the_present_session_only(store: Store) {
    let wang = user(&store, "wang").await;
    let (present, other) = (sign_in(&store, wang.id).await, sign_in(&store, wang.id).await);
    let kept = session_of(&store, &present).await;
    let mut tx = store.begin().await.unwrap();
    let ended = change_password(&mut tx, store.clock(), &wang, "$argon2id$second", kept).await.unwrap();
    assert_eq!(ended, Some(1));
    let again = change_password(&mut tx, store.clock(), &wang, "$argon2id$third", kept).await.unwrap();
    assert_eq!(again, None, "what was verified is no longer the password");
    tx.commit().await.unwrap();
    assert_eq!(get(&store, wang.id).await.unwrap().password_hash, "$argon2id$second");
    assert!(is_live(&store, &present).await && !is_live(&store, &other).await);
}

async fn changed(store: &Store, read: &User, wanted: &Standing) -> Changed {
    let mut tx = store.begin().await.unwrap();
    let changed = change(&mut tx, store.clock(), read, wanted).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

pub(crate) async fn somebody_kept_out_has_no_session(store: Store) {
    let mut wang = user(&store, "wang").await;
    let session = sign_in(&store, wang.id).await;
    for active in [false, true] {
        let wanted = Standing { active, ..Standing::of(&wang) };
        let Changed::Done(now, ended) = changed(&store, &wang, &wanted).await else {
            panic!("nothing is against it")
        };
        assert_eq!((now.active, ended), (active, u64::from(!active)));
        wang = *now;
        assert!(!is_live(&store, &session).await, "nor does it come back with the person");
    }
}

pub(crate) async fn a_user_is_changed_from_what_was_read(store: Store) {
    let read = user(&store, "wang").await;
    let session = sign_in(&store, read.id).await;
    let wanted = Standing { role: Role::StoreManager, store_id: Some("B".into()), active: true };
    store.clock().advance(chrono::TimeDelta::seconds(1));
    let Changed::Done(now, ended) = changed(&store, &read, &wanted).await else {
        panic!("it is as it was read")
    };
    assert_eq!((now.role, now.store_id.as_deref(), now.updated_at), (Role::StoreManager, Some("B"), at(1)));
    assert_eq!((ended, is_live(&store, &session).await), (1, false));
    assert_eq!(get(&store, read.id).await.unwrap(), *now);
    assert_eq!(changed(&store, &read, &wanted).await, Changed::Meanwhile);
}

pub(crate) async fn admin(store: &Store, username: &str, store_id: Option<&str>) -> User {
    let new = NewUser { username, password_hash: "x", role: Role::Admin, store_id };
    let mut tx = store.begin().await.unwrap();
    let user = insert(&mut tx, store.clock(), new).await.unwrap();
    tx.commit().await.unwrap();
    user
}

pub(crate) async fn the_last_admin_of_the_chain_stays(store: Store) {
    let only = admin(&store, "only", None).await;
    admin(&store, "of-a-store", Some("A")).await;
    let other = admin(&store, "other", None).await;
    let keep_out = |user: &User| Standing { active: false, ..Standing::of(user) };
    assert!(matches!(changed(&store, &other, &keep_out(&other)).await, Changed::Done(..)));
    let of_store = Standing { store_id: Some("A".into()), ..Standing::of(&only) };
    let staff = Standing { role: Role::Staff, ..Standing::of(&only) };
    for wanted in [keep_out(&only), of_store, staff] {
        assert_eq!(changed(&store, &only, &wanted).await, Changed::LastAdmin);
    }
    assert_eq!(get(&store, only.id).await.unwrap(), only);
}

pub(crate) async fn of_many_admins_who_remove_each_other_at_once_one_stays(store: Store) {
    for round in 0..5 {
        let mut admins = Vec::new();
        for number in 0..4 {
            admins.push(admin(&store, &format!("admin-{round}-{number}"), None).await);
        }
        let removing: Vec<_> = admins
            .into_iter()
            .map(|admin| {
                let store = store.clone();
                tokio::spawn(async move {
                    let wanted = Standing { active: false, ..Standing::of(&admin) };
                    changed(&store, &admin, &wanted).await
                })
            })
            .collect();
        let mut refused = 0;
        for removal in removing {
            refused += u32::from(removal.await.unwrap() == Changed::LastAdmin);
        }
        let filter = Filter { role: Some(Role::Admin), active: Some(true), limit: 10, ..Filter::default() };
        let left = list_newest(&store, &filter).await.unwrap();
        // The one that stayed in the round before is there too.
        assert_eq!((left.len(), refused), (1, u32::from(round == 0)));
    }
}

pub(crate) async fn users_are_listed_newest_first_within_the_callers_scope(store: Store) {
    for (name, store_id) in [("a", Some("A")), ("b", Some("B")), ("c", None), ("d", Some("A"))] {
        admin(&store, name, store_id).await;
        store.clock().advance(chrono::TimeDelta::seconds(1));
    }
    user(&store, "e").await;
    let names = async |filter: Filter<'_>| -> String {
        list_newest(&store, &filter).await.unwrap().into_iter().map(|user| user.username).collect()
    };
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(names(all.clone()).await, "edcba");
    assert_eq!(names(Filter { scope: Some("A"), ..all.clone() }).await, "eda");
    assert_eq!(names(Filter { scope: Some("A"), store_id: Some("B"), ..all.clone() }).await, "");
    assert_eq!(names(Filter { store_id: Some("A"), role: Some(Role::Admin), ..all.clone() }).await, "da");
    assert_eq!(names(Filter { active: Some(false), ..all.clone() }).await, "");
    let page = list_newest(&store, &Filter { limit: 2, ..all.clone() }).await.unwrap();
    let after = page.last().map(|user| (user.created_at, user.id));
    assert_eq!(names(Filter { after, ..all }).await, "cba");
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
