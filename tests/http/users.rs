//! People and programs: users, passwords, sessions, API tokens, and the limits of signing in.

use chrono::TimeDelta;
use poem::http::Method;
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::{Answered, TestApp};

async fn sign_in(app: &TestApp, username: &str, password: &str) -> Answered {
    let body = json!({"username": username, "password": password});
    app.send(Method::POST, "/auth/login", None, Some(&body)).await
}

fn token_of(answered: &Answered) -> String {
    answered.json()["access_token"].as_str().unwrap().to_owned()
}

async fn made(app: &TestApp, admin: &str, username: &str, store_id: Option<&str>) -> String {
    let body =
        json!({"username": username, "password": "first of many", "role": "staff", "store_id": store_id});
    let made = app.post("/users", admin, &body).await;
    assert_eq!(made.status, 200, "{}", made.text);
    made.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_user_is_made_changed_and_closed() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let id = made(&app, &admin, "Li.Lei", Some("store-1")).await;
        let path = format!("/users/{id}");
        let shown = app.get(&path, &admin).await.json();
        assert_eq!((&shown["username"], &shown["active"]), (&json!("li.lei"), &json!(true)));
        assert!(!shown.to_string().contains("argon2"), "no hash is shown");
        let again = json!({"username": "LI.LEI", "password": "first of many", "role": "admin"});
        assert_eq!(app.post("/users", &admin, &again).await.status, 409);
        for (body, field) in [
            (json!({"username": "two words", "password": "long enough", "role": "staff"}), "username"),
            (json!({"username": "mei", "password": "short", "role": "staff"}), "password"),
            (json!({"username": "mei", "password": "x".repeat(1_025), "role": "staff"}), "password"),
            (json!({"username": "mei", "password": "long enough", "role": "boss"}), "role"),
        ] {
            assert_eq!(app.post("/users", &admin, &body).await.json()["errors"][0]["field"], field);
        }

        let token = token_of(&sign_in(&app, "li.lei", "first of many").await);
        let changed = app.put(&path, &admin, &json!({"role": "warehouse_manager", "store_id": null})).await;
        assert_eq!(
            (&changed.json()["role"], &changed.json()["store_id"]),
            (&json!("warehouse_manager"), &Value::Null)
        );
        assert_eq!(
            app.get("/auth/me", &token).await.status,
            401,
            "whoever may do something else signs in again"
        );
        let token = token_of(&sign_in(&app, "li.lei", "first of many").await);
        assert_eq!(app.send(Method::DELETE, &path, Some(&admin), None).await.status, 200);
        assert_eq!(app.get("/auth/me", &token).await.status, 401);
        assert_eq!(sign_in(&app, "li.lei", "first of many").await.status, 401);
        assert_eq!(app.get(&path, &admin).await.json()["active"], false, "the account is closed, not gone");
        let open = app.get("/users?active=false", &admin).await.json();
        assert_eq!(open.as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn somebody_is_always_left_who_may_do_everything() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let me = app.get("/auth/me", &admin).await.json()["id"].as_str().unwrap().to_owned();
        for change in [json!({"role": "staff"}), json!({"active": false}), json!({"store_id": "store-1"})] {
            let refused = app.put(&format!("/users/{me}"), &admin, &change).await;
            assert_eq!(
                (refused.status, refused.json()["code"].as_str()),
                (409, Some("last_admin")),
                "{change}"
            );
        }
        let body = json!({"username": "second", "password": "long enough", "role": "admin"});
        app.post("/users", &admin, &body).await;
        assert_eq!(app.put(&format!("/users/{me}"), &admin, &json!({"role": "staff"})).await.status, 200);
    }
}

#[tokio::test]
async fn an_admin_of_a_store_manages_its_people_only() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let other = made(&app, &admin, "other", Some("store-2")).await;
    let scoped = app.token(Role::Admin, Some("store-1")).await;
    assert_eq!(app.get(&format!("/users/{other}"), &scoped).await.status, 404);
    let own = made(&app, &scoped, "own", None).await;
    assert_eq!(app.get(&format!("/users/{own}"), &admin).await.json()["store_id"], "store-1");
    let moved = app.put(&format!("/users/{own}"), &scoped, &json!({"store_id": "store-2"})).await;
    assert_eq!(moved.json()["code"], "other_store");
    let token = json!({"name": "t", "role": "admin", "store_id": "store-2"});
    assert_eq!(app.post("/tokens", &scoped, &token).await.json()["code"], "other_store");
}

#[tokio::test]
async fn a_password_is_changed_and_other_sessions_end() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let id = made(&app, &admin, "mei", None).await;
        let mine = token_of(&sign_in(&app, "mei", "first of many").await);
        let elsewhere = token_of(&sign_in(&app, "mei", "first of many").await);
        let wrong = json!({"current_password": "not the one", "new_password": "second of many"});
        assert_eq!(app.post("/auth/password", &mine, &wrong).await.json()["code"], "wrong_password");
        let right = json!({"current_password": "first of many", "new_password": "second of many"});
        assert_eq!(app.post("/auth/password", &mine, &right).await.status, 200);
        assert_eq!(app.get("/auth/me", &mine).await.status, 200);
        assert_eq!(app.get("/auth/me", &elsewhere).await.status, 401);
        assert_eq!(sign_in(&app, "mei", "first of many").await.status, 401);

        let second = token_of(&sign_in(&app, "mei", "second of many").await);
        let sessions = app.get("/auth/sessions", &mine).await.json();
        let current: Vec<&Value> = sessions.as_array().unwrap().iter().map(|one| &one["current"]).collect();
        assert_eq!(current.iter().filter(|current| ***current == json!(true)).count(), 1);
        assert_eq!(
            app.get(&format!("/users/{id}/sessions"), &admin).await.json().as_array().unwrap().len(),
            2
        );
        let other = sessions.as_array().unwrap().iter().find(|one| one["current"] == false).unwrap();
        let path = format!("/auth/sessions/{}", other["id"].as_str().unwrap());
        assert_eq!(app.send(Method::DELETE, &path, Some(&mine), None).await.status, 200);
        assert_eq!(app.get("/auth/me", &second).await.status, 401);
        assert_eq!(app.send(Method::DELETE, &path, Some(&mine), None).await.status, 404);

        let set =
            app.post(&format!("/users/{id}/password"), &admin, &json!({"password": "third of many"})).await;
        assert_eq!(set.status, 200);
        assert_eq!(app.get("/auth/me", &mine).await.status, 401);
        let third = token_of(&sign_in(&app, "mei", "third of many").await);
        app.send(Method::DELETE, &format!("/users/{id}/sessions"), Some(&admin), None).await;
        assert_eq!(app.get("/auth/me", &third).await.status, 401);
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_until_it_is_over_or_revoked() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"store_id": "store-1"})).await;
        let expires = "2026-01-05T12:00:00Z";
        let body = json!({"name": "till 7", "role": "staff", "store_id": "store-1", "expires_at": expires});
        let made = app.post("/tokens", &admin, &body).await.json();
        let token = made["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("zls_"));
        let path = format!("/tokens/{}", made["id"].as_str().unwrap());
        assert_eq!(app.get(&path, &admin).await.json()["last_used_at"], Value::Null);

        let transaction = json!({"transaction_id": "T-1"});
        let handed =
            app.post(&format!("/integrations/pos/{system}/transactions"), &token, &transaction).await;
        assert_eq!(handed.status, 200, "{}", handed.text);
        let shown = app.get(&path, &admin).await;
        assert!(shown.json()["last_used_at"].is_string() && !shown.text.contains(&token));
        let audited = app.get("/audit-logs?action=transaction.create", &admin).await.json();
        assert_eq!(
            (&audited[0]["actor_name"], &audited[0]["actor_id"]),
            (&json!("token:till 7"), &made["id"])
        );
        assert_eq!(app.get("/users", &token).await.status, 403, "its role is its own");
        for path in ["/auth/sessions", "/auth/me"] {
            assert_eq!(app.get(path, &token).await.status, if path.ends_with("me") { 200 } else { 403 });
        }
        assert_eq!(app.post("/auth/logout", &token, &json!({})).await.json()["code"], "session_needed");

        app.advance(TimeDelta::hours(24));
        assert_eq!(app.get("/auth/me", &token).await.status, 401, "it is over");
        let admin = app.admin().await;
        let body = json!({"name": "till 8", "role": "staff"});
        let made = app.post("/tokens", &admin, &body).await.json();
        let token = made["token"].as_str().unwrap().to_owned();
        assert_eq!(app.get("/auth/me", &token).await.status, 200);
        let path = format!("/tokens/{}", made["id"].as_str().unwrap());
        assert_eq!(app.send(Method::DELETE, &path, Some(&admin), None).await.status, 200);
        assert_eq!(app.get("/auth/me", &token).await.status, 401);
        let past = json!({"name": "x", "role": "staff", "expires_at": expires});
        assert_eq!(app.post("/tokens", &admin, &past).await.json()["errors"][0]["field"], "expires_at");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_whoever_is_right_is_not() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        made(&app, &admin, "mei", None).await;
        for _ in 0..12 {
            assert_eq!(
                sign_in(&app, "mei", "first of many").await.status,
                200,
                "what succeeds does not count"
            );
        }
        // The same for a name that nobody has.
        for username in ["mei", "nobody"] {
            for _ in 0..10 {
                assert_eq!(sign_in(&app, username, "guessed").await.json()["code"], "wrong_credentials");
            }
            let refused = sign_in(&app, username, "first of many").await;
            assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("too_many_sign_ins")));
            let secs: i64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=91).contains(&secs), "{secs}");
        }
        app.advance(TimeDelta::seconds(91));
        assert_eq!(sign_in(&app, "mei", "first of many").await.status, 200);
    }
}

#[tokio::test]
async fn one_address_tries_so_many_accounts_and_no_more() {
    let app = TestApp::with(|settings| settings.auth.sign_ins_per_address = 5).await;
    for guess in 0..5 {
        assert_eq!(sign_in(&app, &format!("user-{guess}"), "guessed").await.status, 401);
    }
    assert_eq!(sign_in(&app, "user-5", "guessed").await.status, 429);
}
