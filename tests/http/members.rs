//! Members: handed in, listed, and pushed to a vendor that takes them.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zhilian_sync_store::Role;

use crate::support::TestApp;

const LIST: &str = "/integrations/member/members";

fn member(points: i64) -> Value {
    json!({"member_id": "M-1", "phone": "13800000000", "name": "王芳", "points": points, "balance": 50, "card": 7})
}

/// A vendor on loopback that gives these answers, and what it was asked.
async fn vendor(answers: &[(u16, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (Arc::clone(&asked), answers.to_vec());
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The body is JSON, and nothing follows it.
            while !(request.ends_with(b"}") && request.windows(4).any(|part| part == b"\r\n\r\n")) {
                if socket.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            seen.lock().unwrap().push(String::from_utf8(request).unwrap());
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\n");
            let answer = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
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
        let (endpoint, asked) = vendor(&[(200, r#"{"id":"V-9"}"#)]).await;
        let system = system(&app, &admin, &endpoint, "newest").await;
        let path = format!("/integrations/member/{system}/sync");
        let made = app.post(&path, &admin, &member(120)).await;
        assert_eq!(made.status, 200, "{}", made.text);
        let made = made.json();
        assert_eq!((&made["sync_status"], &made["ignored_fields"]), (&json!("pending"), &json!(["card"])));
        app.drain().await;
        let told = asked.lock().unwrap().concat();
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
    let (endpoint, asked) =
        vendor(&[(500, "{}"), (200, "{}"), (422, r#"{"error":"no"}"#), (200, "{}")]).await;
    let system = system(&app, &admin, &endpoint, "newest").await;
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
    assert_eq!(asked.lock().unwrap().len(), 4);
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
