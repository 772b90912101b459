//! `Idempotency-Key`: sent twice, done once, answered twice.

use poem::http::Method;
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::{Answered, TestApp};

const SYSTEMS: &str = "/integrations/systems";

async fn post(app: &TestApp, path: &str, token: &str, key: &str, body: &Value) -> Answered {
    let headers = [("authorization", format!("Bearer {token}")), ("idempotency-key", key.to_owned())];
    let body = ("application/json", body.to_string());
    app.send_raw(Method::POST, &format!("/api/v1{path}"), &headers, Some(body)).await
}

fn till(name: &str) -> Value {
    json!({"name": name, "type": "pos", "provider": "demo-pos"})
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_and_no_second_effect() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let first = post(&app, SYSTEMS, &admin, "k-1", &till("Till")).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
        let again = post(&app, SYSTEMS, &admin, "k-1", &till("Till")).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
        assert_eq!(first.text, again.text);
        assert_eq!(app.get(SYSTEMS, &admin).await.json().as_array().unwrap().len(), 1);

        let other = post(&app, SYSTEMS, &admin, "k-1", &till("Another")).await;
        assert_eq!((other.status, other.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
        // A key is its caller's own, and of one path.
        let somebody = app.token(Role::StoreManager, None).await;
        assert_eq!(
            post(&app, SYSTEMS, &somebody, "k-1", &till("Till")).await.header("idempotency-replayed"),
            None
        );
        let batch = format!("/integrations/pos/{}/transactions/batch", first.json()["id"].as_str().unwrap());
        let records = json!({"records": [{"transaction_id": "T-1"}]});
        assert_eq!(post(&app, &batch, &admin, "k-1", &records).await.json()["created"], 1);
        assert_eq!(
            post(&app, &batch, &admin, "k-1", &records).await.json()["created"],
            1,
            "as it was answered first"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    assert_eq!(post(&app, SYSTEMS, &admin, "k-1", &json!({"name": "Till"})).await.status, 422);
    assert_eq!(post(&app, SYSTEMS, &admin, "k-1", &till("Till")).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    for key in ["", "two words", &"k".repeat(256)] {
        let refused = post(&app, SYSTEMS, &admin, key, &till("Till")).await;
        assert_eq!(refused.json()["errors"][0]["field"], "Idempotency-Key", "{}", refused.text);
    }
    let id = app.system(&admin, json!({})).await;
    let secret = post(&app, &format!("{SYSTEMS}/{id}/webhook-secret"), &admin, "k-1", &json!({})).await;
    assert_eq!(secret.status, 422, "an answer that shows a secret is not kept: {}", secret.text);
}

#[tokio::test]
async fn while_the_first_is_under_way_the_second_is_told_so() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let first = post(&app, SYSTEMS, &admin, "k-1", &till("Till")).await;
    assert_eq!(first.status, 200);
    zhilian_sync_store::on_write!(app.store(), |ex| {
        sqlx::query("UPDATE idempotency_keys SET status = NULL, response = NULL").execute(ex).await.map(drop)
    })
    .unwrap();
    let second = post(&app, SYSTEMS, &admin, "k-1", &till("Till")).await;
    assert_eq!((second.status, second.json()["code"].as_str()), (409, Some("idempotency_in_progress")));
    assert_eq!(second.header("retry-after"), Some("5"));
}
