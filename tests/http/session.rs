//! Signing in and out.

use chrono::TimeDelta;
use poem::http::Method;
use serde_json::json;
use zhilian_sync_store::{Role, audit_logs};

use crate::support::TestApp;

#[tokio::test]
async fn a_user_signs_in_is_known_and_signs_out() {
    for app in TestApp::every().await {
        app.user("Mei", "correct horse", Role::StoreManager).await;
        let body = json!({"username": "mei", "password": "correct horse"});
        let signed_in = app.send(Method::POST, "/auth/login", None, Some(&body)).await;
        let token = signed_in.json()["access_token"].as_str().unwrap().to_owned();
        let shown = signed_in.show().replace(&token, "TOKEN");
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "access_token": "TOKEN",
          "expires_at": "2026-01-05T00:00:00.000Z",
          "token_type": "bearer",
          "user": {
            "id": "id-1",
            "role": "store_manager",
            "store_id": null,
            "username": "mei"
          }
        }
        "#));

        let shown = app.get("/auth/me", &token).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "id": "id-1",
          "role": "store_manager",
          "store_id": null,
          "username": "mei"
        }
        "#));
        let shown = app.post("/auth/logout", &token, &json!({})).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        set-cookie: zhilian_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict
        {
          "message": "signed out",
          "success": true
        }
        "#));
        let shown = app.get("/auth/me", &token).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        401
        www-authenticate: Bearer
        {
          "code": "invalid_token",
          "detail": "the token is unknown or its session has ended; sign in again",
          "request_id": "test",
          "status": 401,
          "title": "Unauthorized",
          "type": "/problems/invalid_token"
        }
        "#));
    }
}

#[tokio::test]
async fn nobody_is_told_whether_the_name_or_the_password_was_wrong() {
    let app = TestApp::new().await;
    app.user("mei", "correct horse", Role::Staff).await;
    let mut answers = Vec::new();
    for (username, password) in [("mei", "wrong horse"), ("nobody", "correct horse")] {
        let body = json!({"username": username, "password": password});
        answers.push(app.send(Method::POST, "/auth/login", None, Some(&body)).await.show());
    }
    assert_eq!(answers[0], answers[1]);
    insta::assert_snapshot!(answers[0], @r#"
    401
    www-authenticate: Bearer
    {
      "code": "wrong_credentials",
      "detail": "the user name or the password is wrong",
      "request_id": "test",
      "status": 401,
      "title": "Unauthorized",
      "type": "/problems/wrong_credentials"
    }
    "#);
}

#[tokio::test]
async fn a_session_ends_by_itself() {
    let app = TestApp::new().await;
    let token = app.admin().await;
    app.advance(TimeDelta::hours(11));
    assert_eq!(app.get("/auth/me", &token).await.status, 200);
    app.advance(TimeDelta::hours(2));
    assert_eq!(app.get("/auth/me", &token).await.status, 401);
}

#[tokio::test]
async fn a_browser_keeps_its_token_in_a_cookie_that_counts_only_on_our_pages() {
    let app = TestApp::new().await;
    app.user("mei", "correct horse", Role::StoreManager).await;
    let body = json!({"username": "mei", "password": "correct horse", "cookie": true});
    let signed_in = app.send(Method::POST, "/auth/login", None, Some(&body)).await;
    assert_eq!(signed_in.json().get("access_token"), None);
    let set = signed_in.header("set-cookie").unwrap().to_owned();
    let (cookie, attributes) = set.split_once(';').unwrap();
    insta::assert_snapshot!(attributes, @" Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");

    let with = |origin: Option<&str>| {
        let mut headers = vec![("cookie", cookie.to_owned()), ("host", "sync.example.com".to_owned())];
        headers.extend(origin.map(|origin| ("origin", origin.to_owned())));
        headers
    };
    let me = "/api/v1/auth/me";
    assert_eq!(app.send_raw(Method::GET, me, &with(None), None).await.status, 200);
    let out = "/api/v1/auth/logout";
    let foreign = app.send_raw(Method::POST, out, &with(Some("https://evil.example")), None).await;
    insta::assert_snapshot!(foreign.show(), @r#"
    403
    {
      "code": "foreign_origin",
      "detail": "a change by cookie must come from this service's own pages; expected its `Origin`",
      "request_id": "test",
      "status": 403,
      "title": "Forbidden",
      "type": "/problems/foreign_origin"
    }
    "#);
    assert_eq!(app.send_raw(Method::POST, out, &with(None), None).await.status, 403);
    let own = app.send_raw(Method::POST, out, &with(Some("https://sync.example.com")), None).await;
    assert_eq!(own.status, 200);
    assert_eq!(app.send_raw(Method::GET, me, &with(None), None).await.status, 401);
}

#[tokio::test]
async fn signing_in_leaves_a_trace_without_the_password() {
    let app = TestApp::new().await;
    app.user("mei", "correct horse", Role::Staff).await;
    for password in ["wrong horse", "correct horse"] {
        let body = json!({"username": "mei", "password": password});
        app.send(Method::POST, "/auth/login", None, Some(&body)).await;
        app.advance(TimeDelta::seconds(1));
    }
    let trace = audit_logs::list(app.store(), None, 10).await.unwrap();
    let actions: Vec<&str> = trace.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["session.sign_in", "session.refused"]);
    assert!(!format!("{trace:?}").contains("horse"));
}
