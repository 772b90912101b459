//! When systems are due, and schedules tried out.

use serde_json::{Value, json};

use crate::support::TestApp;

async fn locals(app: &TestApp, body: Value) -> Vec<String> {
    let admin = app.admin().await;
    let shown = app.post("/integrations/schedules/preview", &admin, &body).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    let times = shown.json()["times"].as_array().unwrap().clone();
    assert_eq!(times.len(), 10);
    times.iter().map(|time| time["local"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_schedule_is_tried_out_in_its_zone() {
    let app = TestApp::new().await;
    let times = locals(&app, json!({"sync_cron": "30 2 * * *"})).await;
    assert_eq!(times[..2], ["2026-01-05T02:30:00+08:00", "2026-01-06T02:30:00+08:00"]);
    let times = locals(&app, json!({"sync_interval": 900, "timezone": "UTC"})).await;
    assert_eq!(times[..2], ["2026-01-04T12:15:00+00:00", "2026-01-04T12:30:00+00:00"]);
}

#[tokio::test]
async fn a_time_that_a_change_of_clocks_leaves_out_comes_right_after_it() {
    let app = TestApp::new().await;
    app.advance(chrono::TimeDelta::days(82));
    let body = json!({"sync_cron": "30 1 * * *", "timezone": "Europe/London"});
    let times = locals(&app, body).await;
    assert_eq!(
        times[..4],
        [
            "2026-03-28T01:30:00+00:00",
            // From one o'clock to two there is nothing in this night.
            "2026-03-29T02:00:00+01:00",
            "2026-03-30T01:30:00+01:00",
            "2026-03-31T01:30:00+01:00",
        ]
    );
}

#[tokio::test]
async fn a_schedule_that_cannot_be_is_refused_by_its_field() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    for (body, field) in [
        (json!({}), "sync_interval"),
        (json!({"sync_interval": 0}), "sync_interval"),
        (json!({"sync_interval": 60, "sync_cron": "* * * * *"}), "sync_cron"),
        (json!({"sync_cron": "0 0 31 2 *"}), "sync_cron"),
        (json!({"sync_cron": "@daily"}), "sync_cron"),
        (json!({"sync_cron": "* * * * *", "timezone": "Mars/Olympus"}), "timezone"),
    ] {
        let refused = app.post("/integrations/schedules/preview", &admin, &body).await;
        assert_eq!(refused.status, 422, "{body}");
        assert_eq!(refused.json()["errors"][0]["field"], field, "{body}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_systems_schedule_says_when_and_whether() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"sync_cron": "0 */6 * * *", "timezone": "Asia/Shanghai"})).await;
    let shown = app.get(&format!("/integrations/systems/{system}/schedule"), &admin).await;
    let mut json = shown.json();
    json["times"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap(), @r#"
    {
      "enabled": false,
      "jitter_seconds": null,
      "next_sync_at": null,
      "sync_cron": "0 */6 * * *",
      "sync_interval": null,
      "times": [
        {
          "local": "2026-01-05T00:00:00+08:00",
          "utc": "2026-01-04T16:00:00.000Z"
        }
      ],
      "timezone": "Asia/Shanghai"
    }
    "#);
}
