//! Live and ready.

use poem::http::Method;

use crate::support::TestApp;

#[tokio::test]
async fn a_process_is_live_and_ready() {
    for app in TestApp::every().await {
        let shown = app.send(Method::GET, "/health/live", None, None).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "status": "ok"
        }
        "#));
        let shown = app.send(Method::GET, "/health/ready", None, None).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "clock_skew_ms": 0,
          "database": "ok",
          "queue": "ok",
          "status": "ready"
        }
        "#));
        let outside = app.send_raw(Method::GET, "/health/ready", &[], None).await;
        assert_eq!(outside.status, 200);
    }
}

#[tokio::test]
async fn without_a_database_it_is_live_and_not_ready() {
    let mut app = TestApp::new().await;
    app.leave_work();
    app.store().close().await;
    assert_eq!(app.send_raw(Method::GET, "/health/live", &[], None).await.status, 200);
    insta::assert_snapshot!(app.send_raw(Method::GET, "/health/ready", &[], None).await.show(), @r#"
    503
    {
      "clock_skew_ms": 0,
      "database": "does not answer, or its schema is not up to date",
      "queue": "ok",
      "status": "not_ready"
    }
    "#);
}
