//! Hearing what happens, as it happens.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use poem::http::Method;
use poem::test::TestResponse;
use serde_json::{Value, json};
use zhilian_sync::config::Settings;
use zhilian_sync::simulator::scripted::{Answer, Scripted};
use zhilian_sync_store::Role;

use crate::hooks;
use crate::support::TestApp;

/// News come at once, and nothing but news.
fn quick(settings: &mut Settings) {
    settings.events.poll_ms = 2;
    settings.events.heartbeat_ms = 3_600_000;
}

/// One who listens.
struct Ear(Pin<Box<dyn Stream<Item = std::io::Result<bytes::Bytes>> + Send>>);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    id: Option<i64>,
    event: String,
    data: Value,
}

impl Ear {
    async fn open(app: &TestApp, query: &str, token: &str, last: Option<i64>) -> Self {
        let header = last.map(|id| ("last-event-id", id.to_string()));
        let answered = app.open(&format!("/events{query}"), token, header.as_slice()).await;
        Self::on(answered).await
    }

    async fn on(answered: TestResponse) -> Self {
        assert_eq!(answered.0.status(), 200);
        assert_eq!(answered.0.headers()["content-type"], "text/event-stream");
        let mut ear = Self(Box::pin(answered.0.into_body().into_bytes_stream()));
        assert_eq!(ear.piece().await.as_deref(), Some("retry: 3000\n\n"));
        ear
    }

    /// The next piece; `None` at the end.
    async fn piece(&mut self) -> Option<String> {
        let piece = tokio::time::timeout(Duration::from_secs(20), self.0.next());
        let piece = piece.await.expect("something is heard in time")?;
        Some(String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    async fn hear(&mut self) -> Heard {
        let piece = self.piece().await.expect("the stream goes on");
        let field = |name: &str| piece.lines().find_map(|line| line.strip_prefix(name));
        Heard {
            id: field("id: ").map(|id| id.parse().unwrap()),
            event: field("event: ").unwrap().to_owned(),
            data: serde_json::from_str(field("data: ").unwrap()).unwrap(),
        }
    }

    async fn hear_many(&mut self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(self.hear().await);
        }
        heard
    }
}

/// Event and the part of its data that tells most.
fn told(heard: &[Heard]) -> Vec<String> {
    let word = |heard: &Heard| {
        let data = &heard.data["data"];
        let more = ["change", "stream", "event_type"].iter().find_map(|name| data[*name].as_str());
        let status = data["status"].as_str().unwrap_or("-");
        format!("{} {} {status}", heard.event, more.unwrap_or("-"))
    };
    heard.iter().map(word).collect()
}

/// A system whose test fails, its id and the five events that this makes.
async fn tested(app: &TestApp, admin: &str) -> String {
    let system = app.system(admin, json!({"api_endpoint": "http://127.0.0.1:1", "api_key": "key-9"})).await;
    app.post(&format!("/integrations/systems/{system}/test?wait=0"), admin, &json!({})).await;
    app.drain().await;
    app.post(&format!("/integrations/systems/{system}/pause"), admin, &json!({"note": "holiday"})).await;
    system
}

#[tokio::test]
async fn runs_and_systems_are_heard_in_order_by_all_who_listen() {
    for app in TestApp::every_with(quick).await {
        let admin = app.admin().await;
        // Housekeeping is heard of too.
        app.drain().await;
        let mut ears = [Ear::open(&app, "", &admin, None).await, Ear::open(&app, "", &admin, None).await];
        let system = tested(&app, &admin).await;
        app.delete(&format!("/integrations/systems/{system}"), &admin).await;
        for ear in &mut ears {
            let heard = ear.hear_many(5).await;
            assert_eq!(
                told(&heard),
                [
                    "system.changed created inactive",
                    "run.started connection_test syncing",
                    "run.ended connection_test failed",
                    "system.changed paused inactive",
                    "system.changed deleted inactive",
                ]
            );
            let ids: Vec<_> = heard.iter().map(|heard| heard.id.unwrap()).collect();
            assert_eq!(ids, (ids[0]..ids[0] + 5).collect::<Vec<_>>(), "no gap and no repetition");
            assert!(heard.iter().all(|heard| heard.data["system_id"] == json!(system)));
            assert_eq!(heard[1].data["run_id"], heard[2].data["run_id"]);
            let all = format!("{heard:?}");
            assert!(
                !all.contains("key-9") && !all.contains("holiday") && !all.contains("127.0.0.1"),
                "{all}"
            );
        }
    }
}

#[tokio::test]
async fn a_status_that_a_run_changes_is_heard() {
    for app in TestApp::every_with(quick).await {
        let admin = app.admin().await;
        let welcome = json!({"code": 0, "message": "ok", "data": {"shop_name": "The Till"}});
        let vendor = Scripted::start_with(move |_| Answer::json(200, &welcome)).await.unwrap();
        vendor.push(Answer::status(401));
        let system = app.system(&admin, json!({"api_endpoint": vendor.url(), "api_key": "key-9"})).await;
        let mut ear = Ear::open(&app, "?kind=system.changed", &admin, None).await;
        for _ in 0..3 {
            app.post(&format!("/integrations/systems/{system}/test?wait=0"), &admin, &json!({})).await;
            app.drain().await;
        }
        app.put(&format!("/integrations/systems/{system}"), &admin, &json!({"name": "Tills"})).await;
        let heard = ear.hear_many(3).await;
        assert_eq!(
            told(&heard),
            ["system.changed status error", "system.changed status active", "system.changed updated active",]
        );
    }
}

#[tokio::test]
async fn who_comes_back_hears_what_was_missed_and_nothing_twice() {
    for app in TestApp::every_with(quick).await {
        let admin = app.admin().await;
        let mut ear = Ear::open(&app, "", &admin, None).await;
        tested(&app, &admin).await;
        let first = ear.hear_many(2).await;
        drop(ear);
        tested(&app, &admin).await;
        let last = first[1].id;
        for (query, header) in [(String::new(), last), (format!("?last_event_id={}", last.unwrap()), Some(0))]
        {
            let mut ear = Ear::open(&app, &query, &admin, header).await;
            let rest = ear.hear_many(6).await;
            let ids: Vec<_> = rest.iter().map(|heard| heard.id.unwrap()).collect();
            let next = last.unwrap() + 1;
            assert_eq!(ids, (next..next + 6).collect::<Vec<_>>());
        }
        let mut late = Ear::open(&app, "", &admin, None).await;
        let system = app.system(&admin, json!({})).await;
        assert_eq!(late.hear().await.data["system_id"], json!(system), "from now on, where nothing is named");
    }
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_so() {
    let app = TestApp::with(quick).await;
    let admin = app.admin().await;
    let mut ear = Ear::open(&app, "", &admin, Some(999)).await;
    let heard = ear.hear().await;
    assert_eq!((heard.id, heard.event.as_str()), (None, "reset"));
    app.system(&admin, json!({})).await;
    assert_eq!(ear.hear().await.event, "system.changed", "and it goes on");
    assert_eq!(app.open("/events?last_event_id=soon", &admin, &[]).await.0.status(), 422);
}

#[tokio::test]
async fn a_caller_hears_of_its_own_store_and_of_what_it_asks_for() {
    let app = TestApp::with(quick).await;
    let admin = app.admin().await;
    let scoped = app.token(Role::Staff, Some("store-1")).await;
    let own = app.system(&admin, json!({"store_id": "store-1"})).await;
    let mut ear = Ear::open(&app, "", &scoped, None).await;
    let mut one = Ear::open(&app, &format!("?system_id={own}"), &admin, None).await;
    let mut kind = Ear::open(&app, "?kind=run.ended", &admin, None).await;
    for store in [json!("store-2"), Value::Null] {
        let other = app.system(&admin, json!({"store_id": store})).await;
        let refused = app.get(&format!("/events?system_id={other}"), &scoped).await;
        assert_eq!(refused.status, 404);
    }
    app.post(&format!("/integrations/systems/{own}/test?wait=0"), &admin, &json!({})).await;
    app.drain().await;
    for ear in [&mut ear, &mut one] {
        assert_eq!(ear.hear().await.event, "run.started");
        assert_eq!(ear.hear().await.data["system_id"], json!(own));
    }
    assert_eq!(kind.hear().await.event, "run.ended");
    assert_eq!(app.get("/events?kind=anything", &admin).await.status, 422);
}

#[tokio::test]
async fn webhooks_are_heard_of_once_for_a_minute() {
    let app = TestApp::with(quick).await;
    let admin = app.admin().await;
    let till = hooks::till(&app, json!({})).await;
    app.drain().await;
    let mut ear = Ear::open(&app, "", &admin, None).await;
    for number in ["1", "2", "3"] {
        assert_eq!(hooks::post_signed(&app, &till, &hooks::sale(number, "9.90")).await.status, 200);
        app.drain().await;
    }
    app.system(&admin, json!({})).await;
    let heard = ear.hear_many(2).await;
    assert_eq!(told(&heard), ["webhooks.applied transaction.created -", "system.changed created inactive"]);
}

#[tokio::test]
async fn there_are_only_so_many_places_and_who_leaves_frees_one() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.events.listeners_max = 1;
    })
    .await;
    let admin = app.admin().await;
    let ear = Ear::open(&app, "", &admin, None).await;
    insta::assert_snapshot!(app.get("/events", &admin).await.show(), @r#"
    503
    retry-after: 5
    {
      "code": "too_many_listeners",
      "detail": "1 clients listen already, as many as may (`events.listeners_max`)",
      "request_id": "test",
      "status": 503,
      "title": "Service Unavailable",
      "type": "/problems/too_many_listeners"
    }
    "#);
    drop(ear);
    Ear::open(&app, "", &admin, None).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_with_the_process() {
    let app = TestApp::with(|settings| settings.events.heartbeat_ms = 20).await;
    let staff = app.token(Role::Staff, None).await;
    let admin = app.admin().await;
    let mut ear = Ear::open(&app, "", &staff, None).await;
    let mut other = Ear::open(&app, "", &admin, None).await;
    assert_eq!(ear.piece().await.as_deref(), Some(":\n\n"));
    assert_eq!(app.send(Method::POST, "/auth/logout", Some(&staff), None).await.status, 200);
    while let Some(piece) = ear.piece().await {
        assert_eq!(piece, ":\n\n");
    }
    assert_eq!(other.piece().await.as_deref(), Some(":\n\n"), "the others go on");
    app.app.feed().end();
    while other.piece().await.is_some() {}
}
