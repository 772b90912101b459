//! Transactions of tills: hand in, repeat, list.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::TestApp;

const LIST: &str = "/integrations/pos/transactions";

fn sale() -> Value {
    // As text, so that the amounts keep their digits.
    serde_json::from_str(
        r#"{
            "transaction_id": "T-1001", "order_number": "A-17", "type": "sale",
            "subtotal": 310.00, "tax": 18.60, "discount": "31.8", "total": 296.80,
            "payment_method": "wechat",
            "items": [{"name": "宫保鸡丁", "price": 48.00, "quantity": 2}],
            "customer": {"name": "王\u0000芳", "phone": "13800000000"},
            "transaction_time": "2024-02-15T10:00:00",
            "table": 7
        }"#,
    )
    .unwrap()
}

#[tokio::test]
async fn a_transaction_is_handed_in_exactly() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"store_id": "store-1"})).await;
        let staff = app.token(Role::Staff, Some("store-1")).await;
        let made = app.post(&format!("/integrations/pos/{system}/transactions"), &staff, &sale()).await;
        let shown = made.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "created_at": "2026-01-04T12:00:00.000Z",
          "currency": "CNY",
          "customer_info": {
            "name": "王\u0000芳",
            "phone": "13800000000"
          },
          "discount": 31.80,
          "id": "id-1",
          "ignored_fields": [
            "table"
          ],
          "items": [
            {
              "name": "宫保鸡丁",
              "price": 48.00,
              "quantity": 2
            }
          ],
          "payment_method": "wechat",
          "pos_order_number": "A-17",
          "pos_transaction_id": "T-1001",
          "store_id": "store-1",
          "subtotal": 310.00,
          "sync_log_id": null,
          "sync_status": "success",
          "system_id": "id-2",
          "tax": 18.60,
          "total": 296.80,
          "transaction_time": "2024-02-15T02:00:00.000Z",
          "transaction_type": "sale"
        }
        "#));
    }
}

#[tokio::test]
async fn a_repeated_transaction_changes_nothing() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({})).await;
        let path = format!("/integrations/pos/{system}/transactions");
        let first = app.post(&path, &admin, &sale()).await;
        app.advance(TimeDelta::seconds(5));
        let second = app.post(&path, &admin, &sale()).await;
        assert_eq!(first.json(), second.json());
        assert_eq!(app.get(LIST, &admin).await.json().as_array().unwrap().len(), 1);
        let undated = json!({"transaction_id": "T-2"});
        let first_undated = app.post(&path, &admin, &undated).await;
        app.advance(TimeDelta::seconds(5));
        assert_eq!(app.post(&path, &admin, &undated).await.json(), first_undated.json());

        let mut other = sale();
        other["total"] = json!(1);
        let changed = app.post(&path, &admin, &other).await.json();
        assert_eq!((&changed["id"], changed["total"].to_string()), (&first.json()["id"], "1.00".to_owned()));
        let shown = app.get(&format!("{LIST}/{}", changed["id"].as_str().unwrap()), &admin).await.json();
        assert_eq!(shown["total"], changed["total"], "other content is the newer word");

        let neighbour = app.system(&admin, json!({"name": "Other till"})).await;
        let third = app.post(&format!("/integrations/pos/{neighbour}/transactions"), &admin, &sale()).await;
        assert_ne!(third.json()["id"], first.json()["id"], "ids of two vendors may collide");
    }
}

#[tokio::test]
async fn only_a_till_that_is_there_takes_transactions() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let supplier = app.system(&admin, json!({"type": "supplier", "provider": "generic-rest"})).await;
    let wrong_type = app.post(&format!("/integrations/pos/{supplier}/transactions"), &admin, &sale()).await;
    insta::assert_snapshot!(wrong_type.show(), @r#"
    400
    {
      "code": "wrong_system_type",
      "detail": "system `Till` is of type `supplier`; expected `pos`",
      "request_id": "test",
      "status": 400,
      "title": "Bad Request",
      "type": "/problems/wrong_system_type"
    }
    "#);
    let unknown = format!("/integrations/pos/{}/transactions", uuid::Uuid::nil());
    assert_eq!(app.post(&unknown, &admin, &sale()).await.status, 404);
}

#[tokio::test]
async fn impossible_amounts_and_times_are_refused() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let path = format!("/integrations/pos/{}/transactions", app.system(&admin, json!({})).await);
    let body =
        json!({"transaction_id": "T", "subtotal": 0.001, "tax": "1e999999", "total": "99999999999999999999"});
    insta::assert_snapshot!(app.post(&path, &admin, &body).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`subtotal` `0.001` has more decimals than the 2 of its currency; check the unit or the currency; `tax` `1e+999999` is too large for an amount; expected at most 15 digits; `total` `99999999999999999999` is too large for an amount; expected at most 15 digits",
      "errors": [
        {
          "detail": "`0.001` has more decimals than the 2 of its currency; check the unit or the currency",
          "field": "subtotal"
        },
        {
          "detail": "`1e+999999` is too large for an amount; expected at most 15 digits",
          "field": "tax"
        },
        {
          "detail": "`99999999999999999999` is too large for an amount; expected at most 15 digits",
          "field": "total"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
    let body = json!({"transaction_id": 5, "total": "NaN", "items": ["x"], "transaction_time": "soon"});
    insta::assert_snapshot!(app.post(&path, &admin, &body).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`transaction_id` is a number; expected a text; `total` is not an amount; expected a number such as 296.80; `items` is a text; expected an object; `transaction_time` is not a time; expected `2024-02-15T10:00:00` or with a zone",
      "errors": [
        {
          "detail": "is a number; expected a text",
          "field": "transaction_id"
        },
        {
          "detail": "is not an amount; expected a number such as 296.80",
          "field": "total"
        },
        {
          "detail": "is a text; expected an object",
          "field": "items"
        },
        {
          "detail": "is not a time; expected `2024-02-15T10:00:00` or with a zone",
          "field": "transaction_time"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
}

#[tokio::test]
async fn transactions_are_listed_by_their_time_page_by_page() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"store_id": "store-1"})).await;
        let path = format!("/integrations/pos/{system}/transactions");
        for day in [3, 1, 2] {
            let body = json!({"transaction_id": format!("T-{day}"), "transaction_time": format!("2024-02-0{day}T10:00:00Z")});
            app.post(&path, &admin, &body).await;
        }
        let first = app.get(&format!("{LIST}?limit=2"), &admin).await;
        assert_eq!(ids(&first.json()), ["T-3", "T-2"]);
        let next = first.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        let second = app.get(next.strip_prefix("/api/v1").unwrap(), &admin).await;
        assert_eq!(ids(&second.json()), ["T-1"]);
        assert_eq!(second.header("link"), None);

        let other = app.token(Role::Staff, Some("store-2")).await;
        assert_eq!(app.get(LIST, &other).await.json(), json!([]));
        let nothing = app.get(&format!("{LIST}?sync_status=failed"), &admin).await;
        assert_eq!(nothing.json(), json!([]));
        assert_eq!(
            ids(&app.get(&format!("{LIST}?store_id=store-1&limit=500"), &admin).await.json()).len(),
            3
        );
    }
}

#[tokio::test]
async fn transactions_are_found_by_what_people_know_of_them() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({})).await;
        let path = format!("/integrations/pos/{system}/transactions");
        app.post(&path, &admin, &sale()).await;
        let refund = json!({"transaction_id": "T-2", "type": "refund", "total": -12.5, "transaction_time": "2024-03-01T10:00:00Z"});
        app.post(&path, &admin, &refund).await;
        for (filter, expected) in [
            ("", vec!["T-2", "T-1001"]),
            ("?type=refund", vec!["T-2"]),
            ("?type=void", vec![]),
            ("?order_number=A-17", vec!["T-1001"]),
            ("?phone=13800000000", vec!["T-1001"]),
            ("?phone=1380000000", vec![]),
            ("?from=2024-03-01T00:00:00Z", vec!["T-2"]),
            ("?to=2024-03-01T00:00:00Z", vec!["T-1001"]),
            ("?from=2024-02-15T02:00:00Z&to=2024-02-15T02:00:00Z", vec![]),
        ] {
            assert_eq!(ids(&app.get(&format!("{LIST}{filter}"), &admin).await.json()), expected, "{filter}");
        }
        assert_eq!(app.get(&format!("{LIST}?from=yesterday"), &admin).await.status, 422);
        let unknown = format!("{LIST}/{}", uuid::Uuid::nil());
        assert_eq!(app.get(&unknown, &admin).await.status, 404);
    }
}

#[tokio::test]
async fn amounts_keep_every_digit() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let path = format!("/integrations/pos/{}/transactions", app.system(&admin, json!({})).await);
        // What is sent, and what is answered: digits, or nothing at all.
        for (index, (sent, expected)) in [
            ("296.80", Some("296.80")),
            ("99999999.99", Some("99999999.99")),
            ("0.1", Some("0.10")),
            ("0.30", Some("0.30")),
            ("0.30000000000000004", None),
            ("-12.50", Some("-12.50")),
            ("\"58.5\"", Some("58.50")),
            ("1e2", Some("100.00")),
            ("1.005", None),
            ("1e-3", None),
            ("1.500", Some("1.50")),
            ("9999999999999.99", Some("9999999999999.99")),
            ("99999999999999999.99", None),
            ("\"\"", None),
            ("\"1,5\"", None),
            ("true", None),
        ]
        .into_iter()
        .enumerate()
        {
            let body = format!(r#"{{"transaction_id": "M-{index}", "type": "refund", "total": {sent}}}"#);
            let answered = app.post(&path, &admin, &serde_json::from_str(&body).unwrap()).await;
            if let Some(expected) = expected {
                let shown = format!("\"total\":{expected},");
                assert!(answered.text.contains(&shown), "{sent}: {}", answered.text);
                let id = answered.json()["id"].as_str().unwrap().to_owned();
                let read = app.get(&format!("{LIST}/{id}"), &admin).await;
                assert!(read.text.contains(&shown), "{sent}: {}", read.text);
            } else {
                assert_eq!(answered.status, 422, "{sent}: {}", answered.text);
                assert_eq!(answered.json()["errors"][0]["field"], "total", "{sent}");
            }
        }
    }
}

fn ids(list: &Value) -> Vec<String> {
    let ids =
        list.as_array().unwrap().iter().map(|row| row["pos_transaction_id"].as_str().unwrap().to_owned());
    ids.collect()
}
