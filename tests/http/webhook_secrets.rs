//! New webhook secrets: the former ones count for a while, then no more, and none is shown twice.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::hooks::{SECRET, audited, post, sale, signed, till};
use crate::support::TestApp;

/// Whether an event with this signature is believed; each is another event.
async fn believed(app: &TestApp, system: &str, secret: &str, number: u32) -> bool {
    let body = sale(&format!("T-{number}"), "1.00");
    let status = post(app, system, &signed(&body, secret), &body).await.status;
    assert!(matches!(status, 200 | 401), "{status}");
    status == 200
}

#[tokio::test]
async fn former_secrets_count_until_their_end() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        let manager = app.token(Role::StoreManager, None).await;
        let path = format!("/integrations/systems/{system}");
        let rotated =
            app.post(&format!("{path}/webhook-secret"), &manager, &json!({"overlap_hours": 2})).await;
        assert_eq!(rotated.status, 200, "{}", rotated.text);
        let second = rotated.json()["secret"].as_str().unwrap().to_owned();
        assert!(second.len() >= 40, "{}", second.len());
        let shown = rotated.show().replace(&second, "SECRET");
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "secret": "SECRET",
          "system_id": "id-1",
          "version": 2,
          "webhook_path": "/api/v1/integrations/webhooks/pos/id-1",
          "webhook_secret_expiries": [
            "2026-01-04T14:00:00.000Z"
          ]
        }
        "#));
        assert!(believed(&app, &system, SECRET, 1).await && believed(&app, &system, &second, 2).await);

        app.advance(TimeDelta::hours(1));
        let third = "given-by-the-vendor";
        let body = json!({"secret": third, "overlap_hours": 24});
        let given = app.post(&format!("{path}/webhook-secret"), &manager, &body).await;
        assert_eq!((given.status, given.json().get("secret")), (200, None), "what was given is not repeated");
        // The first keeps its own end, the second has a day.
        let shown = app.get(&path, &manager).await.json();
        let ends = json!(["2026-01-04T14:00:00.000Z", "2026-01-05T13:00:00.000Z"]);
        assert_eq!(shown["webhook_secret_expiries"], ends);
        for (secret, number) in [(SECRET, 3), (&second, 4), (third, 5)] {
            assert!(believed(&app, &system, secret, number).await, "{number}");
        }
        app.advance(TimeDelta::hours(2));
        assert!(!believed(&app, &system, SECRET, 6).await, "its time is over");
        assert!(believed(&app, &system, &second, 7).await && believed(&app, &system, third, 8).await);
        app.drain().await;
        let changes: Vec<Value> =
            audited(&app, "system.webhook_secret").await.into_iter().map(|(_, detail)| detail).collect();
        let secret = json!({"webhook_secret": "changed"});
        assert_eq!(changes[0], json!({"made_here": false, "overlap_hours": 24, "changes": secret}));
        assert_eq!(changes[1], json!({"made_here": true, "overlap_hours": 2, "changes": secret}));
    }
}

#[tokio::test]
async fn an_overlap_of_nothing_ends_the_former_ones_at_once() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let admin = app.admin().await;
    let path = format!("/integrations/systems/{system}/webhook-secret");
    let default = app.post(&path, &admin, &json!({})).await.json();
    assert_eq!(default["webhook_secret_expiries"], json!(["2026-01-05T12:00:00.000Z"]));
    let second = default["secret"].as_str().unwrap().to_owned();
    let body = json!({"secret": "third-secret", "overlap_hours": 0});
    let none = app.post(&path, &admin, &body).await.json();
    assert_eq!(none["webhook_secret_expiries"], json!([]));
    for (secret, number, expected) in [(SECRET, 1, false), (&second, 2, false), ("third-secret", 3, true)] {
        assert_eq!(believed(&app, &system, secret, number).await, expected, "{number}");
    }
    app.drain().await;
}

#[tokio::test]
async fn a_secret_that_is_set_takes_the_place_of_all() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let admin = app.admin().await;
    let path = format!("/integrations/systems/{system}");
    app.post(&format!("{path}/webhook-secret"), &admin, &json!({})).await;
    let set = app.put(&path, &admin, &json!({"webhook_secret": "set-anew"})).await.json();
    assert_eq!((&set["has_webhook_secret"], &set["webhook_secret_expiries"]), (&json!(true), &json!([])));
    assert!(!believed(&app, &system, SECRET, 1).await);
    assert!(believed(&app, &system, "set-anew", 2).await);
    app.drain().await;
    let gone = app.put(&path, &admin, &json!({"webhook_secret": null})).await.json();
    assert_eq!(gone["has_webhook_secret"], false);
}

#[tokio::test]
async fn wishes_that_cannot_be_granted_are_named() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let admin = app.admin().await;
    let path = format!("/integrations/systems/{system}/webhook-secret");
    for wrong in [
        json!({"secret": ""}),
        json!({"secret": 5}),
        json!({"overlap_hours": -1}),
        json!({"overlap_hours": 721}),
        json!({"sekret": "x"}),
        json!({"secret": SECRET}),
    ] {
        let refused = app.post(&path, &admin, &wrong).await;
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.text);
        assert!(!refused.text.contains(SECRET));
    }
    for _ in 0..9 {
        assert_eq!(app.post(&path, &admin, &json!({})).await.status, 200);
    }
    insta::assert_snapshot!(app.post(&path, &admin, &json!({})).await.show(), @r#"
    409
    {
      "code": "too_many_secrets",
      "detail": "the system has 10 webhook secrets that are still valid; wait until one is over, or end them all with `overlap_hours` 0",
      "request_id": "test",
      "status": 409,
      "title": "Conflict",
      "type": "/problems/too_many_secrets"
    }
    "#);
    app.advance(TimeDelta::hours(25));
    let admin = app.admin().await;
    assert_eq!(app.post(&path, &admin, &json!({})).await.status, 200, "those that are over make room");
}

#[tokio::test]
async fn a_new_secret_has_the_form_that_its_vendor_reads() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = crate::webhooks::MANIFEST.replace("echo-pos", "standard-pos");
    let (rest, _) = manifest.split_once("[webhook]").unwrap();
    let manifest = format!(
        "{rest}[webhook]\npreset = \"standard\"\n[[webhook.routes]]\nevents = [\"*\"]\naction = \"ignore\"\n"
    );
    std::fs::write(directory.path().join("standard-pos.toml"), manifest).unwrap();
    let folder = directory.path().to_str().unwrap().to_owned();
    let app = TestApp::with(|settings| settings.vendors.directory = folder).await;
    let system = till(&app, json!({"provider": "standard-pos", "webhook_secret": null})).await;
    let admin = app.admin().await;
    let path = format!("/integrations/systems/{system}/webhook-secret");
    let made = app.post(&path, &admin, &json!({})).await.json()["secret"].as_str().unwrap().to_owned();
    let bytes = made
        .strip_prefix("whsec_")
        .map(|text| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text));
    assert_eq!(bytes.unwrap().unwrap().len(), 32);
    let refused = app.post(&path, &admin, &json!({"secret": "whsec_not base64"})).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}
