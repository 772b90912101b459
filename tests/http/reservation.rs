//! Reservations: handed in and sent by webhook, one list; and the records of other streams.

use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::TestApp;

const LIST: &str = "/integrations/reservation/reservations";

fn reservation() -> Value {
    serde_json::from_str(
        r#"{
            "reservation_id": "RES-1", "reservation_number": "N-17", "customer_name": "王芳",
            "customer_phone": "13800000000", "customer_count": 4, "reservation_date": "2024-02-15T18:00:00",
            "reservation_time": "18:00-20:00", "table_type": "包间", "status": "confirmed",
            "deposit_required": true, "deposit_amount": 200.00, "deposit_paid": false, "source": "phone",
            "birthday": true
        }"#,
    )
    .unwrap()
}

#[tokio::test]
async fn a_reservation_is_handed_in_exactly() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app
            .system(&admin, json!({"type": "reservation", "provider": "house", "store_id": "store-1"}))
            .await;
        let staff = app.token(Role::Staff, Some("store-1")).await;
        let path = format!("/integrations/reservation/{system}/reservations");
        let made = app.post(&path, &staff, &reservation()).await;
        insta::allow_duplicates!(insta::assert_snapshot!(made.show(), @r#"
        200
        {
          "area": null,
          "arrival_time": null,
          "channel": null,
          "created_at": "2026-01-04T12:00:00.000Z",
          "customer_count": 4,
          "customer_name": "王芳",
          "customer_phone": "13800000000",
          "deposit_amount": 200.00,
          "deposit_paid": false,
          "deposit_required": true,
          "external_id": null,
          "id": "id-1",
          "ignored_fields": [
            "birthday"
          ],
          "notes": null,
          "reservation_date": "2024-02-15T10:00:00.000Z",
          "reservation_id": "RES-1",
          "reservation_number": "N-17",
          "reservation_time": "18:00-20:00",
          "source": "phone",
          "special_requirements": null,
          "status": "confirmed",
          "store_id": "store-1",
          "sync_log_id": null,
          "sync_status": "success",
          "system_id": "id-2",
          "table_number": null,
          "table_type": "包间"
        }
        "#));
        assert_eq!(
            app.post(&path, &staff, &reservation()).await.json(),
            made.json(),
            "repeating changes nothing"
        );
        let id = made.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(app.get(&format!("{LIST}/{id}"), &staff).await.json()["reservation_number"], "N-17");

        for (filter, found) in [
            ("?phone=13800000000", 1),
            ("?phone=1", 0),
            ("?reservation_number=N-17", 1),
            ("?status=confirmed", 1),
            ("?status=pending", 0),
            ("?from=2024-02-15T00:00:00Z&to=2024-02-16T00:00:00Z", 1),
            ("?from=2024-02-16T00:00:00Z", 0),
        ] {
            let list = app.get(&format!("{LIST}{filter}"), &staff).await.json();
            assert_eq!(list.as_array().unwrap().len(), found, "{filter}");
        }
        // The same row among all records.
        let records = app.get("/integrations/records?stream=reservations", &staff).await.json();
        assert_eq!((&records[0]["id"], &records[0]["number"]), (&json!(id), &json!("N-17")));
        let record = app.get(&format!("/integrations/records/{id}"), &staff).await.json();
        assert_eq!(record["amount"].to_string(), "200.00");
        assert_eq!(app.get("/integrations/records", &staff).await.status, 422, "a stream is named");
    }
}

#[tokio::test]
async fn one_that_is_sent_and_handed_in_is_one() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let unsigned = json!({"type": "reservation", "provider": "house", "webhook_verification": "none"});
        let system = app.system(&admin, unsigned).await;
        let sent = json!({"event": "reservation.created", "data": reservation()});
        let path = format!("/integrations/webhooks/reservation/{system}");
        assert_eq!(app.post(&path, &admin, &sent).await.status, 200);
        app.drain().await;
        let by_webhook = app.get(LIST, &admin).await.json();
        assert_eq!(by_webhook[0]["reservation_number"], "N-17", "{by_webhook}");
        let path = format!("/integrations/reservation/{system}/reservations");
        let handed_in = app.post(&path, &admin, &reservation()).await.json();
        assert_eq!(handed_in["id"], by_webhook[0]["id"]);
        for field in ["customer_phone", "customer_name", "reservation_date", "deposit_amount", "status"] {
            assert_eq!(handed_in[field], by_webhook[0][field], "{field}");
        }
        assert_eq!(app.get(LIST, &admin).await.json().as_array().unwrap().len(), 1);
    }
}
