//! Batches: each record answered on its own.

use serde_json::{Value, json};

use crate::support::TestApp;

#[expect(clippy::too_many_lines, reason = "the whole answer is shown")]
#[tokio::test]
async fn good_records_are_stored_and_bad_ones_explained() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({})).await;
        let path = format!("/integrations/pos/{system}/transactions/batch");
        let batch = json!({"records": [
            {"transaction_id": "T-1", "total": 1, "transaction_time": "2024-02-15T10:00:00Z"},
            {"transaction_id": "T-2", "total": "many", "type": "gift"},
            "nothing",
            {"total": 3},
            {"transaction_id": "T-1", "total": 2, "transaction_time": "2024-02-15T10:00:00Z"},
            {"transaction_id": "T-3", "total": 0.001},
        ]});
        let answered = app.post(&path, &admin, &batch).await;
        insta::allow_duplicates!(insta::assert_snapshot!(answered.show(), @r#"
        200
        {
          "created": 1,
          "failed": 4,
          "results": [
            {
              "id": "T-1",
              "index": 0,
              "record_id": "id-1",
              "status": "unchanged"
            },
            {
              "error": {
                "code": "invalid_values",
                "detail": "`type` is not one of `sale`, `refund`, `void`; `total` is not an amount; expected a number such as 296.80",
                "errors": [
                  {
                    "detail": "is not one of `sale`, `refund`, `void`",
                    "field": "type"
                  },
                  {
                    "detail": "is not an amount; expected a number such as 296.80",
                    "field": "total"
                  }
                ]
              },
              "id": "T-2",
              "index": 1,
              "record_id": null,
              "status": "failed"
            },
            {
              "error": {
                "code": "malformed_record",
                "detail": "the record is not a JSON object",
                "errors": []
              },
              "id": null,
              "index": 2,
              "record_id": null,
              "status": "failed"
            },
            {
              "error": {
                "code": "invalid_values",
                "detail": "`transaction_id` is missing",
                "errors": [
                  {
                    "detail": "is missing",
                    "field": "transaction_id"
                  }
                ]
              },
              "id": null,
              "index": 3,
              "record_id": null,
              "status": "failed"
            },
            {
              "id": "T-1",
              "index": 4,
              "record_id": "id-1",
              "status": "created"
            },
            {
              "error": {
                "code": "invalid_values",
                "detail": "`total` `0.001` has more decimals than the 2 of its currency; check the unit or the currency",
                "errors": [
                  {
                    "detail": "`0.001` has more decimals than the 2 of its currency; check the unit or the currency",
                    "field": "total"
                  }
                ]
              },
              "id": "T-3",
              "index": 5,
              "record_id": null,
              "status": "failed"
            }
          ],
          "total": 6,
          "unchanged": 1,
          "updated": 0
        }
        "#));
        let again = app.post(&path, &admin, &batch).await.json();
        assert_eq!(
            (&again["created"], &again["unchanged"], &again["failed"]),
            (&json!(0), &json!(2), &json!(4))
        );
    }
}

#[tokio::test]
async fn a_thousand_are_taken_and_no_more() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        for (system_type, route, id) in [
            ("pos", "transactions", "transaction_id"),
            ("supplier", "orders", "order_number"),
            ("reservation", "reservations", "reservation_id"),
        ] {
            let system = app.system(&admin, json!({"type": system_type, "provider": "house"})).await;
            let path = format!("/integrations/{system_type}/{system}/{route}/batch");
            let records: Vec<Value> = (0..1_001)
                .map(|index| {
                    json!({
                        id: format!("R-{index}"), "customer_name": "王芳", "customer_phone": "138",
                        "customer_count": 2, "reservation_date": "2024-02-15", "reservation_time": "18:00",
                        "notes": "x".repeat(1_500),
                    })
                })
                .collect();
            let answered = app.post(&path, &admin, &json!({"records": records[..1_000]})).await.json();
            assert_eq!((&answered["created"], &answered["total"]), (&json!(1_000), &json!(1_000)), "{route}");
            let refused = app.post(&path, &admin, &json!({ "records": records })).await;
            assert_eq!(refused.status, 422);
            assert_eq!(
                refused.json()["errors"][0]["detail"],
                "has 1001 records; expected at most 1000, send several batches"
            );
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_batch_refuses_it_whole() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({})).await;
    let path = format!("/integrations/pos/{system}/transactions/batch");
    for (body, detail) in [
        (json!({}), "`records` is missing"),
        (json!({"records": []}), "`records` is empty; expected records"),
        (json!({"records": {}}), "`records` is not a list; expected a list of records"),
        (json!({"records": [{}], "all": true}), "`all` is not a field of this request"),
    ] {
        let refused = app.post(&path, &admin, &body).await;
        assert_eq!((refused.status, refused.json()["detail"].as_str()), (422, Some(detail)));
    }
}
