//! Supplier orders: hand in, repeat, find.

use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::TestApp;

const LIST: &str = "/integrations/supplier/orders";

fn order() -> Value {
    // As text, so that the amounts keep their digits.
    serde_json::from_str(
        r#"{
            "order_number": "PO-2024-001", "supplier_id": "SUP-7", "supplier_name": "绿源蔬菜",
            "type": "purchase", "status": "confirmed",
            "subtotal": 1000.00, "tax": 130.00, "shipping": 50, "total": 1180.00,
            "items": [{"name": "白菜", "quantity": 100, "price": 10.00}],
            "delivery": {"address": "上海市"},
            "order_date": "2024-02-15T10:00:00", "expected_delivery": "2024-02-16T08:00:00",
            "buyer": "Li"
        }"#,
    )
    .unwrap()
}

#[tokio::test]
async fn an_order_is_handed_in_exactly() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system =
            app.system(&admin, json!({"type": "supplier", "provider": "house", "store_id": "store-1"})).await;
        let warehouse = app.token(Role::WarehouseManager, Some("store-1")).await;
        let path = format!("/integrations/supplier/{system}/orders");
        let made = app.post(&path, &warehouse, &order()).await;
        insta::allow_duplicates!(insta::assert_snapshot!(made.show(), @r#"
        200
        {
          "actual_delivery": null,
          "created_at": "2026-01-04T12:00:00.000Z",
          "currency": "CNY",
          "delivery_info": {
            "address": "上海市"
          },
          "expected_delivery": "2024-02-16T00:00:00.000Z",
          "external_order_id": null,
          "id": "id-1",
          "ignored_fields": [
            "buyer"
          ],
          "items": [
            {
              "name": "白菜",
              "price": 10.00,
              "quantity": 100
            }
          ],
          "order_date": "2024-02-15T02:00:00.000Z",
          "order_number": "PO-2024-001",
          "order_type": "purchase",
          "shipping": 50.00,
          "status": "confirmed",
          "store_id": "store-1",
          "subtotal": 1000.00,
          "supplier_id": "SUP-7",
          "supplier_name": "绿源蔬菜",
          "sync_log_id": null,
          "sync_status": "success",
          "system_id": "id-2",
          "tax": 130.00,
          "total": 1180.00,
          "tracking_number": null
        }
        "#));
        assert_eq!(
            app.post(&path, &warehouse, &order()).await.json(),
            made.json(),
            "repeating changes nothing"
        );
        let shown = app.get(&format!("{LIST}/{}", made.json()["id"].as_str().unwrap()), &warehouse).await;
        assert_eq!(shown.json()["total"].to_string(), "1180.00");
    }
}

#[tokio::test]
async fn orders_are_found_by_what_people_know_of_them() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"type": "supplier", "provider": "house"})).await;
        let path = format!("/integrations/supplier/{system}/orders");
        app.post(&path, &admin, &order()).await;
        let back = json!({"order_number": "R-1", "type": "return", "status": "delivered", "order_date": "2024-03-01T10:00:00Z"});
        app.post(&path, &admin, &back).await;
        for (filter, expected) in [
            ("", vec!["R-1", "PO-2024-001"]),
            ("?status=confirmed", vec!["PO-2024-001"]),
            ("?type=return", vec!["R-1"]),
            ("?sync_status=success", vec!["R-1", "PO-2024-001"]),
            ("?sync_status=pending", vec![]),
            ("?order_number=R-1", vec!["R-1"]),
            ("?from=2024-03-01T00:00:00Z", vec!["R-1"]),
            ("?to=2024-03-01T00:00:00Z", vec!["PO-2024-001"]),
            ("?limit=1", vec!["R-1"]),
        ] {
            let list = app.get(&format!("{LIST}{filter}"), &admin).await.json();
            let numbers: Vec<&str> =
                list.as_array().unwrap().iter().map(|row| row["order_number"].as_str().unwrap()).collect();
            assert_eq!(numbers, expected, "{filter}");
        }
    }
}

#[tokio::test]
async fn who_has_nothing_to_do_with_orders_hands_in_none() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let till = app.system(&admin, json!({})).await;
    let path = format!("/integrations/supplier/{till}/orders");
    assert_eq!(app.post(&path, &admin, &order()).await.json()["code"], "wrong_system_type");
    let staff = app.token(Role::Staff, None).await;
    assert_eq!(app.post(&path, &staff, &order()).await.status, 403);
    let wrong = json!({"order_number": "", "status": "lost", "total": "x"});
    let supplier = app.system(&admin, json!({"type": "supplier", "provider": "house"})).await;
    let refused = app.post(&format!("/integrations/supplier/{supplier}/orders"), &admin, &wrong).await.json();
    let fields: Vec<&Value> =
        refused["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["order_number", "status", "total"]);
}
