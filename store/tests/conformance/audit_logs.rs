//! `audit_logs`: who did what.

use zhilian_sync_store::audit_logs::{Filter, NewAuditLog, insert, insert_alone, list, search};
use zhilian_sync_store::{Store, UserId, statements};

use super::support::at;

pub(crate) async fn an_entry_is_written_with_its_change_or_not_at_all(store: Store) {
    let actor = UserId(store.clock().new_id());
    let entry = NewAuditLog {
        actor_id: Some(actor),
        actor_name: Some("wang"),
        address: Some("127.0.0.1"),
        action: "system.update",
        entity: "external_systems",
        entity_id: Some("7"),
        store_id: Some("A"),
        request_id: Some("r-1"),
        detail: Some(r#"{"name":"Till"}"#),
    };
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, store.clock(), entry).await.unwrap();
    drop(tx);
    assert_eq!(list(&store, None, 10).await.unwrap(), [], "rolled back with its change");

    insert_alone(&store, entry).await.unwrap();
    let [written] = list(&store, None, 10).await.unwrap().try_into().unwrap();
    assert_eq!(
        (written.at, written.actor_id, written.actor_name.as_deref()),
        (at(0), Some(actor), Some("wang"))
    );
    assert_eq!((written.action.as_str(), written.entity.as_str()), ("system.update", "external_systems"));
    assert_eq!((written.entity_id.as_deref(), written.store_id.as_deref()), (Some("7"), Some("A")));
    assert_eq!((written.request_id.as_deref(), written.detail.as_deref()), (Some("r-1"), entry.detail));

    let changes = statements().into_iter().filter(|(_, sql)| {
        let sql = sql.to_uppercase();
        sql.contains("AUDIT_LOGS") && (sql.contains("UPDATE") || sql.contains("DELETE"))
    });
    assert_eq!(changes.collect::<Vec<_>>(), [], "the table is append-only");
}

pub(crate) async fn entries_are_listed_newest_first(store: Store) {
    for index in 0..25 {
        let detail = index.to_string();
        insert_alone(&store, NewAuditLog { detail: Some(&detail), ..NewAuditLog::default() }).await.unwrap();
        // Several of the same millisecond: the id decides.
        if index % 5 == 0 {
            store.clock().advance(chrono::TimeDelta::seconds(1));
        }
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = list(&store, before, 10).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.at, last.id));
        seen.extend(page);
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted_by_key(|entry| std::cmp::Reverse((entry.at, entry.id))));
}

pub(crate) async fn entries_are_found_by_every_filter_and_within_the_scope(store: Store) {
    let (wang, li) = (UserId(store.clock().new_id()), UserId(store.clock().new_id()));
    for (name, actor_id, action, entity, entity_id, store_id) in [
        ("a", wang, "system.create", "system", "1", Some("A")),
        ("b", li, "system.update", "system", "1", Some("A")),
        ("c", wang, "user.create", "user", "2", Some("B")),
        ("d", wang, "system.update", "system", "3", None),
    ] {
        let entry = NewAuditLog {
            actor_id: Some(actor_id),
            action,
            entity,
            entity_id: Some(entity_id),
            store_id,
            detail: Some(name),
            ..NewAuditLog::default()
        };
        insert_alone(&store, entry).await.unwrap();
        store.clock().advance(chrono::TimeDelta::seconds(1));
    }
    let all = Filter { limit: 10, ..Filter::default() };
    let found = async |filter: Filter<'_>| -> String {
        search(&store, &filter).await.unwrap().into_iter().filter_map(|entry| entry.detail).collect()
    };
    assert_eq!(found(all.clone()).await, "dcba");
    assert_eq!(found(Filter { scope: Some("A"), ..all.clone() }).await, "ba");
    assert_eq!(found(Filter { scope: Some("A"), store_id: Some("B"), ..all.clone() }).await, "");
    assert_eq!(found(Filter { actor_id: Some(wang), ..all.clone() }).await, "dca");
    assert_eq!(found(Filter { action: Some("system.update"), ..all.clone() }).await, "db");
    assert_eq!(found(Filter { entity: Some("system"), entity_id: Some("1"), ..all.clone() }).await, "ba");
    assert_eq!(found(Filter { entity_id: Some("2"), ..all.clone() }).await, "c");
    assert_eq!(found(Filter { from: Some(at(1)), to: Some(at(3)), ..all.clone() }).await, "cb");
    let page = search(&store, &Filter { limit: 2, ..all.clone() }).await.unwrap();
    let before = page.last().map(|last| (last.at, last.id));
    assert_eq!(found(Filter { before, ..all }).await, "ba");
}
