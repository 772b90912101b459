//! Members: handed in, listed, and pushed to a vendor that takes them.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use zhilian_sync_store::{Role, RunId, sync_logs};

use crate::support::TestApp;

const LIST: &str = "/integrations/member/members";

fn member(points: i64) -> Value {
    json!({"member_id": "M-1", "phone": "13800000000", "name": "王芳", "points": points, "balance": 50, "card": 7})
}

/// A vendor on loopback, and what it was asked.
struct Vendor {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// Each answer takes a permit.
    gate: Arc<Semaphore>,
    /// Another request has come.
    came: Arc<Notify>,
}

impl Vendor {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A vendor that gives these answers at once.
async fn vendor(answers: &[(u16, &'static str)]) -> Vendor {
    let vendor = hesitant(answers).await;
    vendor.gate.add_permits(answers.len());
    vendor
}

/// A vendor that gives each of these answers when it may.
async fn hesitant(answers: &[(u16, &'static str)]) -> Vendor {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let vendor =
        Vendor { url, asked: Arc::default(), gate: Arc::new(Semaphore::new(0)), came: Arc::default() };
    let (seen, gate, came) = (Arc::clone(&vendor.asked), Arc::clone(&vendor.gate), Arc::clone(&vendor.came));
    let answers = answers.to_vec();
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // A body is JSON, and nothing follows it.
            let whole = |request: &[u8]| {
                let headed = request.windows(4).any(|part| part == b"\r\n\r\n");
                headed && (request.starts_with(b"GET ") || request.ends_with(b"}"))
            };
            while !whole(&request) {
                if socket.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            seen.lock().unwrap().push(String::from_utf8(request).unwrap());
            came.notify_one();
            gate.acquire().await.unwrap().forget();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\n");
            let answer = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    vendor
}

async fn system(app: &TestApp, token: &str, endpoint: &str, rule: &str) -> String {
    let config = json!({"auth": "none", "push_path": "/members", "push_id_path": "id"});
    let body = json!({
        "type": "member", "provider": "club", "api_endpoint": endpoint, "config": config,
        "member_conflict": rule,
    });
    app.system(token, body).await
}

#[tokio::test]
async fn a_member_is_handed_in_and_its_vendor_is_told() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let vendor = vendor(&[(200, r#"{"id":"V-9"}"#)]).await;
        let system = system(&app, &admin, &vendor.url, "newest").await;
        let path = format!("/integrations/member/{system}/sync");
        let made = app.post(&path, &admin, &member(120)).await;
        assert_eq!(made.status, 200, "{}", made.text);
        let made = made.json();
        assert_eq!((&made["sync_status"], &made["ignored_fields"]), (&json!("pending"), &json!(["card"])));
        app.drain().await;
        let told = vendor.asked().concat();
        assert!(told.starts_with("POST /members ") && told.contains(r#""points":120"#), "{told}");
        assert!(told.contains(r#""balance":50.00"#), "{told}");
        let shown = app.get(&format!("{LIST}/{}", made["id"].as_str().unwrap()), &admin).await.json();
        assert_eq!((&shown["sync_status"], &shown["external_member_id"]), (&json!("success"), &json!("V-9")));
        assert_eq!(shown["pushed_at"], "2026-01-04T12:00:00.000Z");

        // The same again changes nothing, and nobody is told.
        assert_eq!(app.post(&path, &admin, &member(120)).await.json()["sync_status"], "success");
        let found = app.get(&format!("{LIST}?phone=13800000000&level=gold"), &admin).await;
        assert_eq!(found.json(), json!([]));
        let found = app.get(&format!("{LIST}?phone=13800000000&sync_status=success"), &admin).await;
        assert_eq!(found.json().as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_fault_of_the_vendor_is_tried_again_and_a_refusal_is_not() {
    let app = TestApp::with(|settings| settings.engine.max_attempts = 3).await;
    let admin = app.admin().await;
    let vendor = vendor(&[(500, "{}"), (200, "{}"), (422, r#"{"error":"no"}"#), (200, "{}")]).await;
    let system = system(&app, &admin, &vendor.url, "newest").await;
    let path = format!("/integrations/member/{system}/sync");
    let id = app.post(&path, &admin, &member(1)).await.json()["id"].as_str().unwrap().to_owned();
    let record = format!("{LIST}/{id}");
    app.drain().await;
    assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "pending");
    app.advance(TimeDelta::hours(1));
    app.drain().await;
    assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "success");

    app.post(&path, &admin, &member(2)).await;
    app.drain().await;
    let failed = app.get(&record, &admin).await.json();
    assert_eq!(failed["sync_status"], "failed");
    assert!(failed["push_error"].as_str().unwrap().contains("422"), "{failed}");
    let pushed = app.post(&format!("{record}/push"), &admin, &json!({})).await;
    assert_eq!(pushed.status, 202, "{}", pushed.text);
    app.drain().await;
    let shown = app.get(&record, &admin).await.json();
    assert_eq!((&shown["sync_status"], &shown["push_error"]), (&json!("success"), &Value::Null));
    assert_eq!(vendor.asked().len(), 4);
}

#[tokio::test]
async fn a_vendor_that_takes_no_members_is_not_told() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"type": "member", "provider": "club"})).await;
    let made = app.post(&format!("/integrations/member/{system}/sync"), &admin, &member(1)).await.json();
    assert_eq!(made["sync_status"], "success");
    let push = format!("{LIST}/{}/push", made["id"].as_str().unwrap());
    let refused = app.post(&push, &admin, &json!({})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("cannot_push")));
    let warehouse = app.token(Role::WarehouseManager, None).await;
    assert_eq!(app.post(&push, &warehouse, &json!({})).await.status, 403);

    let batch = json!({"records": [member(1), member(2), {"member_id": ""}]});
    let told = app.post(&format!("/integrations/member/{system}/members/batch"), &admin, &batch).await.json();
    assert_eq!((&told["unchanged"], &told["updated"], &told["failed"]), (&json!(1), &json!(1), &json!(1)));
}

/// A member that is handed in and waits to be pushed: its record's path.
async fn waiting(app: &TestApp, admin: &str, system: &str) -> String {
    let made = app.post(&format!("/integrations/member/{system}/sync"), admin, &member(1)).await.json();
    assert_eq!(made["sync_status"], "pending");
    format!("{LIST}/{}", made["id"].as_str().unwrap())
}

/// The newest push.
async fn push_run(app: &TestApp, admin: &str) -> Value {
    app.get("/integrations/sync-logs?sync_type=push_member", admin).await.json()[0].clone()
}

fn path_of(run: &Value) -> String {
    format!("/integrations/sync-logs/{}", run["id"].as_str().unwrap())
}

#[tokio::test]
async fn what_changes_while_it_is_pushed_is_pushed_once_more() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let vendor = hesitant(&[(200, r#"{"id":"V-1"}"#), (200, "{}")]).await;
        let system = system(&app, &admin, &vendor.url, "newest").await;
        let record = waiting(&app, &admin, &system).await;
        let meanwhile = async {
            vendor.came.notified().await;
            let told = app.post(&format!("/integrations/member/{system}/sync"), &admin, &member(2)).await;
            assert_eq!(told.json()["sync_status"], "pending", "{}", told.text);
            vendor.gate.add_permits(2);
        };
        tokio::join!(app.drain(), meanwhile);
        let told = vendor.asked();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains(r#""points":1"#) && told[1].contains(r#""points":2"#), "{told:?}");
        let shown = app.get(&record, &admin).await.json();
        assert_eq!((&shown["sync_status"], &shown["points"]), (&json!("success"), &json!(2)));
        assert_eq!(shown["external_member_id"], "V-1");
    }
}

#[tokio::test]
async fn a_push_whose_worker_fell_silent_is_sent_again() {
    for app in TestApp::every_with(|settings| settings.engine.max_attempts = 3).await {
        let admin = app.admin().await;
        let vendor = vendor(&[(200, "{}")]).await;
        let system = system(&app, &admin, &vendor.url, "newest").await;
        let record = waiting(&app, &admin, &system).await;
        // Another worker claims the push, tells the vendor, and dies before it has written so.
        let run = RunId(push_run(&app, &admin).await["id"].as_str().unwrap().parse().unwrap());
        let lease = app.store().clock().now() + TimeDelta::seconds(60);
        sync_logs::claim(app.store(), run, "elsewhere", lease).await.unwrap().unwrap();
        app.drain().await;
        assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "pending");
        app.advance(TimeDelta::seconds(61));
        app.drain().await;
        assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "success");
        assert_eq!(vendor.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_push_that_is_cancelled_says_so_on_the_member_and_can_be_repeated() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let vendor = vendor(&[(200, "{}")]).await;
    let system = system(&app, &admin, &vendor.url, "newest").await;
    let record = waiting(&app, &admin, &system).await;
    let run = path_of(&push_run(&app, &admin).await);
    assert_eq!(app.post(&format!("{run}/cancel"), &admin, &json!({})).await.status, 200);
    let shown = app.get(&record, &admin).await.json();
    assert_eq!(
        (&shown["sync_status"], &shown["push_error"]),
        (&json!("failed"), &json!("cancelled by `admin-chain`"))
    );
    let audit = app.get("/audit-logs?action=run.cancel", &admin).await.json();
    let changes = json!({"status": {"from": "pending", "to": "cancelled"}});
    assert_eq!(audit[0]["detail"]["changes"], changes, "{audit}");

    let again = app.post(&format!("{run}/retry"), &admin, &json!({})).await;
    assert_eq!(again.status, 202, "{}", again.text);
    assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "pending");
    app.drain().await;
    assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "success");
    assert_eq!(vendor.asked().len(), 1);
}

#[tokio::test]
async fn while_a_system_is_paused_its_pushes_wait() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let vendor = vendor(&[(200, "{}"), (200, "{}")]).await;
        let system = system(&app, &admin, &vendor.url, "newest").await;
        let paused = format!("/integrations/systems/{system}");
        assert_eq!(app.post(&format!("{paused}/pause"), &admin, &json!({})).await.status, 200);
        let record = waiting(&app, &admin, &system).await;
        // However long it takes, nothing is given up.
        for _ in 0..20 {
            app.drain().await;
            app.advance(TimeDelta::hours(12));
        }
        app.drain().await;
        // The session is over long ago.
        let admin = app.admin().await;
        assert_eq!((vendor.asked().len(), push_run(&app, &admin).await["attempt"].clone()), (0, json!(0)));
        assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "pending");

        assert_eq!(app.post(&format!("{paused}/resume"), &admin, &json!({})).await.status, 200);
        app.drain().await;
        assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "success");
        assert_eq!(vendor.asked().len(), 1);

        // What a person asks for goes out all the same.
        app.post(&format!("{paused}/pause"), &admin, &json!({})).await;
        app.post(&format!("/integrations/member/{system}/sync"), &admin, &member(9)).await;
        app.drain().await;
        assert_eq!(app.post(&format!("{record}/push"), &admin, &json!({})).await.status, 202);
        app.drain().await;
        assert_eq!(app.get(&record, &admin).await.json()["sync_status"], "success");
        assert_eq!(vendor.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_deleted_system_leaves_no_member_waiting() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let vendor = vendor(&[]).await;
    let system = system(&app, &admin, &vendor.url, "newest").await;
    let record = waiting(&app, &admin, &system).await;
    assert_eq!(app.delete(&format!("/integrations/systems/{system}"), &admin).await.status, 200);
    app.drain().await;
    let shown = app.get(&record, &admin).await.json();
    assert_eq!(
        (&shown["sync_status"], &shown["push_error"]),
        (&json!("failed"), &json!("the system was deleted"))
    );
    assert_eq!(vendor.asked(), Vec::<String>::new());
}

/// What the club tells of two members, the first changed after the clients' word.
const TOLD: &str = r#"{"items":[
    {"no":"M-1","id":"V-1","name":"Wang Fang","points":7,"balance":"0.30","changed_at":"2026-01-04T12:00:09Z"},
    {"no":"M-2","id":"V-2","mobile":"13900000000","points":"3.0","changed_at":"2026-01-04T12:00:09Z"}]}"#;

#[tokio::test]
async fn a_pull_and_an_event_bring_members_by_the_systems_rule() {
    for (rule, ours_stays) in [("newest", false), ("vendor", false), ("ours", true)] {
        for app in
            TestApp::every_with(|settings| settings.vendors.directory = "tests/support/manifests".into())
                .await
        {
            let admin = app.admin().await;
            let vendor = vendor(&[(200, "{}"), (200, TOLD)]).await;
            let body = json!({
                "type": "member", "provider": "club", "api_endpoint": vendor.url, "member_conflict": rule,
                "webhook_verification": "none",
            });
            let system = app.system(&admin, body).await;
            waiting(&app, &admin, &system).await;
            app.drain().await;
            app.advance(TimeDelta::seconds(30));
            let started = app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
            assert_eq!(started.status, 202, "{}", started.text);
            app.drain().await;
            assert!(vendor.asked()[0].starts_with("PUT /members/M-1 "), "{:?}", vendor.asked());
            let points = async |id: &str| {
                let found = app.get(&format!("{LIST}?member_id={id}"), &admin).await.json();
                (found[0]["points"].clone(), found[0]["origin"].clone(), found[0]["balance"].to_string())
            };
            let first = points("M-1").await;
            let told = (json!(7), json!("vendor"), "0.30".to_owned());
            assert_eq!(
                first.clone(),
                if ours_stays { (json!(1), json!("ours"), "50.00".to_owned()) } else { told },
                "{rule}"
            );
            assert_eq!(points("M-2").await.0, 3, "{rule}");

            let event = r#"{"type":"member.changed","member":{"no":"M-1","points":8,"changed_at":"2026-01-04T12:00:20Z"}}"#;
            let path = format!("/api/v1/integrations/webhooks/member/{system}");
            let taken = app.send_body(Method::POST, &path, &[], Body::from(event)).await;
            assert_eq!(taken.status, 200, "{}", taken.text);
            app.drain().await;
            assert_eq!(points("M-1").await.0, if ours_stays { 1 } else { 8 }, "{rule}");
        }
    }
}
