//! Out of quarantine: a mended secret, an admin's word.

use chrono::TimeDelta;
use zhilian_sync_jobs::inbox::{Asker, Rejected, Released, Reverified};
use zhilian_sync_store::audit_logs::{self, AuditLog};
use zhilian_sync_store::webhook_events::{self, AcceptedBy, WebhookState};
use zhilian_sync_store::{EventId, Lane, SystemId, external_systems};

use crate::support::{Bench, SECRET, event, hmac_sha256, signed, signed_by, status, unsigned, with_header};

pub(crate) async fn a_mended_secret_brings_events_out_of_quarantine(bench: Bench) {
    let system = bench.system("till", |_| {}, &[("webhook_secret", "mistyped")]).await;
    let process = bench.inbox();
    for id in 0..3 {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(401));
    }
    let forged = signed_by(system, &event(3), "a stranger's guess");
    assert_eq!(status(&process.inbox.receive(forged).await), Ok(401));
    let nothing = process.inbox.reverify(system, &Asker::default()).await.unwrap();
    assert_eq!(nothing, Reverified { verified: 0, duplicates: 0, refused: 4 });

    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    let mended = process.inbox.reverify(system, &Asker::default()).await.unwrap();
    assert_eq!(mended, Reverified { verified: 3, duplicates: 0, refused: 1 });
    let rows = bench.rows(system).await;
    let pending: Vec<_> = rows.iter().filter(|row| row.state == WebhookState::Pending).collect();
    assert_eq!(pending.len(), 3);
    assert!(pending.iter().all(|row| row.accepted_by == Some(AcceptedBy::Verification)));
    assert!(pending.iter().all(|row| row.error_code.is_none()));
    let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
    while process.ctx.queue.depth(Lane::Hooks).await.unwrap() == 0 {
        look.tick().await;
    }
}

pub(crate) async fn an_event_that_came_again_properly_is_a_duplicate(bench: Bench) {
    let system = bench.system("till", |_| {}, &[]).await;
    let process = bench.inbox();
    assert_eq!(status(&process.inbox.receive(signed(system, &event(1))).await), Ok(202), "no secret yet");
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    assert_eq!(status(&process.inbox.receive(signed(system, &event(1))).await), Ok(202), "sent again");
    let done = process.inbox.reverify(system, &Asker::default()).await.unwrap();
    assert_eq!(done, Reverified { verified: 0, duplicates: 1, refused: 0 });
    assert_eq!(bench.count(system, WebhookState::Pending).await, 1);
    assert_eq!(bench.count(system, WebhookState::Duplicate).await, 1);
    assert_eq!(process.inbox.reverify(system, &Asker::default()).await.unwrap(), Reverified::default());
}

pub(crate) async fn the_replay_window_is_measured_from_the_receipt(bench: Bench) {
    let system = bench.system("stamped", |_| {}, &[]).await;
    let process = bench.inbox();
    let now = bench.store.clock().now().timestamp();
    let stamped = |id: u32, at: i64| {
        let body = event(id);
        let signature = hex::encode(hmac_sha256(SECRET.as_bytes(), format!("{at}.{body}").as_bytes()));
        let call = with_header(unsigned(system, &body), "x-signature", &signature);
        with_header(call, "x-timestamp", &at.to_string())
    };
    assert_eq!(status(&process.inbox.receive(stamped(1, now)).await), Ok(200), "no secret yet");
    assert_eq!(status(&process.inbox.receive(stamped(2, now - 3_600)).await), Ok(200));

    bench.store.clock().advance(TimeDelta::days(2));
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    let done = process.inbox.reverify(system, &Asker::default()).await.unwrap();
    assert_eq!(done, Reverified { verified: 1, duplicates: 0, refused: 1 });
    let rows = bench.rows(system).await;
    let refused = rows.iter().find(|row| row.state == WebhookState::Quarantined).unwrap();
    assert_eq!(refused.event_key, "2", "it was an hour old when it came");
    assert_eq!(refused.error_code.as_deref(), Some("timestamp_outside_window"));

    // Somebody who has recorded the genuine request plays it again.
    assert_eq!(status(&process.inbox.receive(stamped(1, now)).await), Ok(401));
    assert_eq!(status(&process.inbox.receive(stamped(3, now + 2 * 86_400)).await), Ok(200), "a fresh one");
    assert_eq!(bench.count(system, WebhookState::Pending).await, 2);
}

pub(crate) async fn a_release_needs_no_signature(bench: Bench) {
    let system = bench.system("silent", |_| {}, &[]).await;
    let process = bench.inbox();
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(1))).await), Ok(200));
    let id = bench.only(system).await.id;
    let release = async |id: EventId| {
        let mut tx = bench.store.begin().await.unwrap();
        let released = process.inbox.release(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        released
    };
    assert_eq!(release(id).await, Released::Pending);
    let row = webhook_events::get(&bench.store, id).await.unwrap();
    assert_eq!((row.state, row.accepted_by), (WebhookState::Pending, Some(AcceptedBy::Release)));
    assert_eq!(release(id).await, Released::NotQuarantined);
    assert_eq!(release(EventId(bench.store.clock().new_id())).await, Released::Unknown);
    // The vendor sends it again: unsigned as ever, it waits again, and is the same event when released.
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(1))).await), Ok(200));
    let rows = bench.rows(system).await;
    let again = rows.iter().find(|row| row.state == WebhookState::Quarantined).unwrap();
    assert_eq!(release(again.id).await, Released::Duplicate);
}

pub(crate) async fn what_leaves_the_quarantine_makes_room_at_once(mut bench: Bench) {
    bench.settings.quarantine_events_max = 2;
    let system: SystemId = bench.system("till", |_| {}, &[]).await;
    let process = bench.inbox();
    for id in 0..2 {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(202));
    }
    assert_eq!(process.inbox.receive(signed(system, &event(2))).await, Err(Rejected::TooMany));
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    assert_eq!(process.inbox.reverify(system, &Asker::default()).await.unwrap().verified, 2);
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(3))).await), Ok(401), "there is room");
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, 1);
}

/// What the audit says about judging again, in the order of the words: the clock of the tests stands still.
async fn audited(bench: &Bench) -> Vec<AuditLog> {
    let mut entries = audit_logs::list(&bench.store, None, 500).await.unwrap();
    entries.retain(|entry| entry.action == "webhook_events.reverify");
    entries.sort_by(|one, other| one.detail.cmp(&other.detail));
    entries
}

fn counts(verified: u64, duplicates: u64, refused: u64) -> String {
    serde_json::json!({"verified": verified, "duplicates": duplicates, "refused": refused}).to_string()
}

/// Long enough for what was started to come to where it waits; nothing depends on its having come there.
async fn a_moment() {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    for _ in 0..30 {
        ticks.tick().await;
    }
}

pub(crate) async fn each_step_is_written_down_with_who_asked(mut bench: Bench) {
    bench.settings.quarantine_events_max = 100;
    bench.settings.unverified_burst = 100;
    let system = bench.system("till", |system| system.store_id = Some("A".into()), &[]).await;
    let process = bench.inbox();
    for id in 0..45 {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(202));
    }
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    let asker = Asker {
        name: Some("ann".into()),
        address: Some("192.0.2.7".into()),
        request: Some("r-1".into()),
        ..Asker::default()
    };
    let done = process.inbox.reverify(system, &asker).await.unwrap();
    assert_eq!(done, Reverified { verified: 45, duplicates: 0, refused: 0 });
    assert_eq!(process.inbox.reverify(system, &asker).await.unwrap(), Reverified::default());
    let entries = audited(&bench).await;
    let details: Vec<_> = entries.iter().map(|entry| entry.detail.clone().unwrap()).collect();
    assert_eq!(details, [counts(0, 0, 0), counts(20, 0, 0), counts(20, 0, 0), counts(5, 0, 0)]);
    for entry in entries {
        assert_eq!((entry.entity_id, entry.store_id), (Some(system.to_string()), Some("A".into())));
        assert_eq!((entry.actor_name.as_deref(), entry.request_id.as_deref()), (Some("ann"), Some("r-1")));
    }
}

pub(crate) async fn a_system_that_is_changed_meanwhile_is_judged_by_what_it_is_now(bench: Bench) {
    let system = bench.system("till", |_| {}, &[]).await;
    let process = bench.inbox();
    for id in 0..3 {
        assert_eq!(
            status(&process.inbox.receive(signed(system, &event(id))).await),
            Ok(202),
            "no secret yet"
        );
    }
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    // The events are judged by a secret that is taken away before they can be moved.
    let mut tx = bench.hold().await;
    let inbox = process.inbox.clone();
    let judging = tokio::spawn(async move { inbox.reverify(system, &Asker::default()).await });
    a_moment().await;
    let mut changed = external_systems::get(&bench.store, system).await.unwrap();
    let another = [("webhook_secret".to_owned(), "another".into())].into();
    external_systems::set_webhook_secrets(&bench.store, &mut changed, &another).unwrap();
    external_systems::save(&mut tx, &changed, None, bench.store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    let done = judging.await.unwrap().unwrap();
    assert_eq!(done, Reverified { verified: 0, duplicates: 0, refused: 3 });
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, 3);
    let details: Vec<_> = audited(&bench).await.into_iter().map(|entry| entry.detail.unwrap()).collect();
    assert_eq!(details, [counts(0, 0, 3)], "what was rolled back is not written down");
}

pub(crate) async fn a_step_that_is_the_victim_of_a_deadlock_is_repeated(bench: Bench) {
    let system = bench.system("till", |_| {}, &[]).await;
    let process = bench.inbox();
    for id in 0..2 {
        assert_eq!(
            status(&process.inbox.receive(signed(system, &event(id))).await),
            Ok(202),
            "no secret yet"
        );
    }
    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    let mut events = Vec::new();
    for row in bench.rows(system).await {
        let event = webhook_events::get(&bench.store, row.id).await.unwrap();
        let event_type = event.event_type.as_deref().unwrap();
        let genuine = webhook_events::fingerprint(system, &event.event_key, event_type, &event.body, None);
        events.push((genuine, event));
    }
    events.sort_by(|one, other| one.0.cmp(&other.0));
    // Somebody who takes them the other way round: the last first, and then what is held by now.
    let now = bench.store.clock().now();
    let release = AcceptedBy::Release;
    let mut tx = bench.store.begin().await.unwrap();
    let (fingerprint, last) = &events[1];
    webhook_events::accept(
        &mut tx,
        last.id,
        release,
        fingerprint,
        &last.event_key,
        Some("order.created"),
        now,
    )
    .await
    .unwrap();
    let inbox = process.inbox.clone();
    let judging = tokio::spawn(async move { inbox.reverify(system, &Asker::default()).await });
    a_moment().await;
    let (fingerprint, first) = &events[0];
    let other =
        webhook_events::accept(&mut tx, first.id, release, fingerprint, &first.event_key, None, now).await;
    match other {
        Ok(_) => tx.commit().await.unwrap(),
        Err(error) => {
            assert!(error.is_busy(), "{error}");
            drop(tx);
        }
    }
    judging.await.unwrap().unwrap();
    assert_eq!(bench.count(system, WebhookState::Pending).await, 2, "whoever was the victim");
}

pub(crate) async fn an_address_that_was_told_wrong_is_mended_like_a_secret(bench: Bench) {
    let system = bench.system("addressed", |_| {}, &[("webhook_secret", SECRET)]).await;
    let process = bench.inbox();
    let body = event(1);
    let mut call = unsigned(system, &body);
    let today = format!("https://sync.example.com{}", call.path);
    let signature = hex::encode(hmac_sha256(SECRET.as_bytes(), format!("{today}{body}").as_bytes()));
    call = with_header(call, "x-signature", &signature);
    call.public_url = "https://wrong.example.com".into();
    assert_eq!(status(&process.inbox.receive(call).await), Ok(401));
    assert_eq!(process.inbox.reverify(system, &Asker::default()).await.unwrap().refused, 1);
    let asker = Asker { webhook_url: today, ..Asker::default() };
    assert_eq!(process.inbox.reverify(system, &asker).await.unwrap().verified, 1);
}
