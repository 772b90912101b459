//! What a request turns out to be, and by which version of its system.

use bytes::Bytes;
use chrono::TimeDelta;
use zhilian_sync_jobs::inbox::Rejected;
use zhilian_sync_store::external_systems;
use zhilian_sync_store::webhook_events::{AcceptedBy, WebhookState};
use zhilian_sync_store::{SystemId, SystemType};

use crate::support::{Bench, SECRET, event, signed, signed_by, status, unsigned, with_header};

pub(crate) async fn a_signed_event_is_a_pending_row_before_it_is_answered(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let reply = process.inbox.receive(signed(system, &event(7))).await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (202, &b"thanks for order.created"[..]));
    let row = bench.only(system).await;
    assert_eq!((row.state, row.accepted_by), (WebhookState::Pending, Some(AcceptedBy::Verification)));
    assert_eq!((row.event_key.as_str(), row.event_type.as_deref()), ("7", Some("order.created")));
    assert_eq!(row.body, event(7).into_bytes(), "the raw bytes");
    assert_eq!(row.received_at, bench.store.clock().now());
}

pub(crate) async fn an_event_that_comes_again_is_answered_like_the_first(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let first = process.inbox.receive(signed(system, &event(7))).await.unwrap();
    let second = process.inbox.receive(signed(system, &event(7))).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(bench.rows_of(system, 2).await.len(), 1);
    let other_body = event(7).replace("29.80", "31.00");
    process.inbox.receive(signed(system, &other_body)).await.unwrap();
    assert_eq!(bench.rows(system).await.len(), 2, "the same key with another body is another event");
}

pub(crate) async fn events_that_differ_in_their_type_alone_are_two(bench: Bench) {
    let system = bench.system("topical", |_| {}, &[("webhook_secret", SECRET)]).await;
    let process = bench.inbox();
    for topic in ["orders/create", "orders/paid", "orders/create"] {
        let call = with_header(signed(system, r#"{"id":7}"#), "x-topic", topic);
        assert_eq!(status(&process.inbox.receive(call).await), Ok(200));
    }
    let mut rows = bench.rows_of(system, 3).await;
    rows.sort_by(|one, other| one.event_type.cmp(&other.event_type));
    let kept: Vec<_> = rows.iter().map(|row| (row.event_type.as_deref().unwrap(), row.deliveries)).collect();
    assert_eq!(kept, [("orders/create", 2), ("orders/paid", 1)]);
}

pub(crate) async fn a_changed_byte_is_refused_and_kept(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let mut call = signed(system, &event(7));
    call.body = Bytes::from(event(7).replace("29.80", "29.81"));
    let reply = process.inbox.receive(call).await.unwrap();
    assert_eq!(reply.status, 401);
    let row = bench.only(system).await;
    assert_eq!((row.state, row.accepted_by), (WebhookState::Quarantined, None));
    assert_eq!(row.error_code.as_deref(), Some("signature_mismatch"));
}

pub(crate) async fn paths_that_lead_nowhere_are_told_apart(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let unknown = signed(SystemId(bench.store.clock().new_id()), &event(7));
    assert_eq!(process.inbox.receive(unknown).await, Err(Rejected::Unknown));
    let mut wrong_type = signed(system, &event(7));
    wrong_type.system_type = SystemType::Member;
    assert_eq!(process.inbox.receive(wrong_type).await, Err(Rejected::WrongType));
    let mut put = signed(system, &event(7));
    put.method = "PUT".into();
    assert_eq!(process.inbox.receive(put).await, Err(Rejected::Method));
    assert!(bench.rows(system).await.is_empty());
}

pub(crate) async fn a_handshake_leaves_no_row(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let mut call = unsigned(system, "");
    (call.method, call.query) = ("GET".into(), "challenge=abc123".into());
    let reply = process.inbox.receive(call.clone()).await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"abc123"[..]));
    call.query = String::new();
    assert_eq!(process.inbox.receive(call).await, Err(Rejected::Method));
    assert!(bench.rows(system).await.is_empty());
}

pub(crate) async fn a_signed_body_that_cannot_be_read_is_kept_aside(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let reply = process.inbox.receive(signed(system, "{\"id\": 7, cut o")).await.unwrap();
    assert_eq!(reply.status, 400);
    let row = bench.only(system).await;
    assert_eq!((row.state, row.error_code.as_deref()), (WebhookState::Quarantined, Some("bad_body")));
    assert!(row.event_key.starts_with("sha256:"));
}

pub(crate) async fn a_waived_system_takes_what_comes(bench: Bench) {
    let waive = |system: &mut external_systems::ExternalSystem| system.webhook_verification = "none".into();
    let (system, process) = (bench.system("till", waive, &[]).await, bench.inbox());
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(7))).await), Ok(202));
    let row = bench.only(system).await;
    assert_eq!((row.state, row.accepted_by), (WebhookState::Pending, Some(AcceptedBy::Waiver)));
}

/// And so does a system without a secret: its vendor is not at fault and is told that all is well.
pub(crate) async fn a_vendor_that_signs_nothing_fills_the_quarantine_only(bench: Bench) {
    let process = bench.inbox();
    let silent = bench.system("silent", |_| {}, &[("webhook_secret", SECRET)]).await;
    let bare = bench.system("till", |_| {}, &[]).await;
    for (system, code, accepted) in [(silent, "not_signed", 200), (bare, "secret_missing", 202)] {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(7))).await), Ok(accepted));
        let row = bench.only(system).await;
        assert_eq!((row.state, row.error_code.as_deref()), (WebhookState::Quarantined, Some(code)));
    }
}

pub(crate) async fn secrets_in_the_request_are_kept_sealed(bench: Bench) {
    let system = bench.system("coded", |_| {}, &[("webhook_secret", SECRET)]).await;
    let process = bench.inbox();
    let coded = |code| with_header(unsigned(system, &event(7)), "x-code", code);
    assert_eq!(status(&process.inbox.receive(coded(SECRET)).await), Ok(200));
    let row = bench.only(system).await;
    assert_eq!(row.state, WebhookState::Pending);
    assert!(!row.request.contains(SECRET), "{}", row.request);
    assert_eq!(status(&process.inbox.receive(coded("wrong-code")).await), Ok(401));
    for row in bench.rows(system).await {
        let row = zhilian_sync_store::webhook_events::get(&bench.store, row.id).await.unwrap();
        assert!(!row.request.contains("wrong-code") && row.sealed_request.is_some(), "{}", row.request);
    }
}

pub(crate) async fn a_secret_counts_or_not_at_once_in_every_process(bench: Bench) {
    let system = bench.till().await;
    let (here, there) = (bench.inbox(), bench.inbox());
    for process in [&here, &there] {
        let id = bench.rows(system).await.len();
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(202));
    }
    // Added: nobody told the processes, and both have the system in memory.
    bench.set_secrets(system, &[("old", SECRET), ("new", "another-secret")]).await;
    for (process, id) in [(&here, 10), (&there, 11)] {
        let call = signed_by(system, &event(id), "another-secret");
        assert_eq!(status(&process.inbox.receive(call).await), Ok(202), "an added secret");
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id + 10))).await), Ok(202));
    }
    // Revoked.
    bench.set_secrets(system, &[("new", "another-secret")]).await;
    for (process, id) in [(&here, 30), (&there, 31)] {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(401), "revoked");
        let call = signed_by(system, &event(id), "another-secret");
        assert_eq!(status(&process.inbox.receive(call).await), Ok(202), "the one that is left");
    }
    assert_eq!(bench.count(system, WebhookState::Pending).await, 8);
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, 2);
}

pub(crate) async fn an_overlap_that_is_over_counts_no_more_though_it_is_cached(bench: Bench) {
    let system = bench.till().await;
    let process = bench.inbox();
    let until = bench.store.clock().now() + TimeDelta::hours(24);
    bench
        .change(system, |store, row| {
            let secrets =
                [("old", SECRET), ("new", "another-secret")].map(|(name, text)| (name.into(), text.into()));
            external_systems::set_webhook_secrets(store, row, &secrets.into()).unwrap();
            row.webhook_secret_expiries.insert("old".into(), until);
        })
        .await;
    assert_eq!(status(&process.inbox.receive(signed(system, &event(1))).await), Ok(202));
    bench.store.clock().advance(TimeDelta::hours(24) + TimeDelta::milliseconds(1));
    assert_eq!(status(&process.inbox.receive(signed(system, &event(2))).await), Ok(401));
    let call = signed_by(system, &event(2), "another-secret");
    assert_eq!(status(&process.inbox.receive(call).await), Ok(202));
}

pub(crate) async fn a_deleted_system_is_unknown_at_once(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    assert_eq!(status(&process.inbox.receive(signed(system, &event(1))).await), Ok(202));
    let row = external_systems::get(&bench.store, system).await.unwrap();
    let mut tx = bench.store.begin().await.unwrap();
    external_systems::delete(&mut tx, &row, bench.store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(process.inbox.receive(signed(system, &event(2))).await, Err(Rejected::Unknown));
    assert_eq!(process.inbox.receive(unsigned(system, &event(3))).await, Err(Rejected::Unknown));
    assert_eq!(bench.rows(system).await.len(), 1);
}
