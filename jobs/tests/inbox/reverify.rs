//! Out of quarantine: a mended secret, an admin's word.

use chrono::TimeDelta;
use zhilian_sync_jobs::inbox::{Rejected, Released, Reverified};
use zhilian_sync_store::webhook_events::{self, AcceptedBy, WebhookState};
use zhilian_sync_store::{EventId, Lane, SystemId};

use crate::support::{Bench, SECRET, event, hmac_sha256, signed, signed_by, status, unsigned, with_header};

pub(crate) async fn a_mended_secret_brings_events_out_of_quarantine(bench: Bench) {
    let system = bench.system("till", |_| {}, &[("webhook_secret", "mistyped")]).await;
    let process = bench.inbox();
    for id in 0..3 {
        assert_eq!(status(&process.inbox.receive(signed(system, &event(id))).await), Ok(401));
    }
    let forged = signed_by(system, &event(3), "a stranger's guess");
    assert_eq!(status(&process.inbox.receive(forged).await), Ok(401));
    let nothing = process.inbox.reverify(system).await.unwrap();
    assert_eq!(nothing, Reverified { verified: 0, duplicates: 0, refused: 4 });

    bench.set_secrets(system, &[("webhook_secret", SECRET)]).await;
    let mended = process.inbox.reverify(system).await.unwrap();
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
    let done = process.inbox.reverify(system).await.unwrap();
    assert_eq!(done, Reverified { verified: 0, duplicates: 1, refused: 0 });
    assert_eq!(bench.count(system, WebhookState::Pending).await, 1);
    assert_eq!(bench.count(system, WebhookState::Duplicate).await, 1);
    assert_eq!(process.inbox.reverify(system).await.unwrap(), Reverified::default());
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
    let done = process.inbox.reverify(system).await.unwrap();
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
    assert_eq!(process.inbox.reverify(system).await.unwrap().verified, 2);
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(3))).await), Ok(401), "there is room");
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, 1);
}
