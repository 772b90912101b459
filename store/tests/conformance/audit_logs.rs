//! `audit_logs`: who did what.

use zhilian_sync_store::audit_logs::{NewAuditLog, insert, insert_alone, list};
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
