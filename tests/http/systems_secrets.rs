//! Secrets go in and never out, and do not go where they were not meant for.

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use zhilian_sync_store::external_systems;

use crate::support::TestApp;

const SYSTEMS: &str = "/integrations/systems";
const CANARY: &str = "canary-7c1f9e";

#[tokio::test]
async fn a_secret_is_found_in_no_answer_and_in_no_row() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let secret = |place: &str| format!("{CANARY}-{place}");
        let body = json!({
            "name": "Till", "type": "pos", "provider": "unheard-of",
            "api_key": secret("top"),
            "webhook_secret": secret("hook"),
            "credentials": {"app_id": secret("map")},
            "config": {"api_secret": secret("config"), "access_token": secret("sounding"), "region": "east"},
        });
        let made = app.post(SYSTEMS, &admin, &body).await;
        assert_eq!(made.status, 200, "{}", made.text);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let path = format!("{SYSTEMS}/{id}");
        let shown = app.get(&path, &admin).await;
        let listed = app.get(SYSTEMS, &admin).await;
        for answered in [&made, &shown, &listed] {
            assert!(!answered.text.contains(CANARY), "{}", answered.text);
        }
        assert_eq!(
            shown.json()["credential_names"],
            json!(["access_token", "api_key", "api_secret", "app_id"])
        );
        assert_eq!(shown.json()["config"], json!({"region": "east"}));
        let row = external_systems::get(app.store(), id.parse().unwrap()).await.unwrap();
        let opened = external_systems::credentials(app.store(), &row).unwrap();
        assert_eq!(opened["api_secret"].expose_secret(), secret("config"));
        assert_eq!(opened["app_id"].expose_secret(), secret("map"));
        assert!(!format!("{row:?}").contains(CANARY));
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_a_secret() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let wrong = [
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "api_key": [CANARY]}),
        json!({"name": "T", "type": CANARY, "provider": "demo-pos"}),
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "config": {"auth": {"password": CANARY}}}),
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "api_endpoint": format!("https://u:{CANARY}@x/")}),
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "config": {"api_endpoint": format!("https://x/?k={CANARY}")}}),
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "credentials": {"a": {"b": CANARY}}}),
        json!({"name": "T", "type": "pos", "provider": "demo-pos", "sync_enabled": CANARY}),
    ];
    for body in wrong {
        let refused = app.post(SYSTEMS, &admin, &body).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.text);
        assert!(!refused.text.contains(CANARY), "{}", refused.text);
    }
}

#[tokio::test]
async fn another_host_or_vendor_needs_the_credentials_again() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let start = json!({"api_endpoint": "https://pos.example.com/v1", "api_key": "key-1"});
    let path = format!("{SYSTEMS}/{}", app.system(&admin, start).await);
    let elsewhere = json!({"api_endpoint": "https://evil.example/v1"});
    insta::assert_snapshot!(app.put(&path, &admin, &elsewhere).await.show(), @r#"
    422
    {
      "code": "credentials_needed",
      "detail": "a change of host, provider or authentication needs the credentials again in the same request; give `api_key`, or null to remove them",
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/credentials_needed"
    }
    "#);
    for refused in [
        json!({"config": {"api_endpoint": "https://evil.example"}}),
        json!({"api_endpoint": "http://pos.example.com/v1"}),
        json!({"api_endpoint": "https://pos.example.com:444/v1"}),
        json!({"provider": "generic-rest"}),
    ] {
        let answered = app.put(&path, &admin, &refused).await;
        assert_eq!(answered.json()["code"], "credentials_needed", "{refused}");
    }
    for allowed in [
        json!({"api_endpoint": "https://pos.example.com/v2"}),
        json!({"name": "Bar"}),
        json!({"api_endpoint": "https://other.example", "api_key": "key-2"}),
        json!({"api_endpoint": "https://third.example", "api_key": null}),
        json!({"api_endpoint": "https://fourth.example"}),
    ] {
        let answered = app.put(&path, &admin, &allowed).await;
        assert_eq!(answered.status, 200, "{allowed}: {}", answered.text);
    }
}

#[tokio::test]
async fn a_change_of_authentication_needs_the_credentials_again() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let catalog = app.app.context().vendors.catalog();
    let manifest = catalog.get("generic-rest").unwrap();
    let key = manifest.config.iter().find(|key| !key.sets.is_empty()).unwrap().name.clone();
    let start = json!({"provider": "generic-rest", "api_endpoint": "https://x.example", "api_key": "key-1"});
    let path = format!("{SYSTEMS}/{}", app.system(&admin, start).await);
    let mut config = serde_json::Map::new();
    config.insert(key, json!("something else"));
    let refused = app.put(&path, &admin, &json!({"config": Value::Object(config.clone())})).await;
    assert_eq!(refused.json()["code"], "credentials_needed", "{}", refused.text);
    config.insert("colour".to_owned(), json!("red"));
    let allowed = app.put(&path, &admin, &json!({"config": {"colour": "red"}})).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text);
}

#[tokio::test]
async fn a_webhook_secret_that_the_manifest_cannot_read_is_refused() {
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/tests/vendors/webhooks");
    let app = TestApp::with(|settings| settings.vendors.directory = manifests.to_owned()).await;
    let admin = app.admin().await;
    let start = json!({"type": "erp", "provider": "standard", "webhook_secret": "whsec_bm90IG91cnM="});
    let path = format!("{SYSTEMS}/{}", app.system(&admin, start).await);
    for (body, field) in [
        (json!({"webhook_secret": "whsec_no base64"}), "webhook_secret"),
        (json!({"webhook_secret": " whsec_bm90IG91cnM="}), "webhook_secret"),
        (json!({"webhook_secret": "whsec_bm90IG91cnM=\n"}), "webhook_secret"),
        (json!({"webhook_secret": "whsec_"}), "webhook_secret"),
        (json!({"config": {"webhook_secret": "whsec_no base64"}}), "config.webhook_secret"),
    ] {
        let mut whole = json!({"name": "Till", "type": "erp", "provider": "standard"});
        for (key, value) in body.as_object().unwrap() {
            whole[key] = value.clone();
        }
        for refused in [app.put(&path, &admin, &body).await, app.post(SYSTEMS, &admin, &whole).await] {
            assert_eq!(refused.status, 422, "{body}: {}", refused.text);
            assert_eq!(refused.json()["errors"][0]["field"], field, "{}", refused.text);
            assert!(!refused.text.contains("whsec_"), "{}", refused.text);
        }
    }
    let rotate = format!("{path}/webhook-secret");
    for secret in ["whsec_no base64", "whsec_b3RoZXI= "] {
        let refused = app.post(&rotate, &admin, &json!({"secret": secret})).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!("secret")));
    }
    for accepted in [
        app.post(&rotate, &admin, &json!({"secret": "whsec_b3RoZXI="})).await,
        app.put(&path, &admin, &json!({"webhook_secret": "b3RoZXI="})).await,
        // Any text will do for a vendor whose secrets are texts.
        app.put(&path, &admin, &json!({"provider": "unheard-of", "webhook_secret": "any text"})).await,
    ] {
        assert_eq!(accepted.status, 200, "{}", accepted.text);
    }
}
