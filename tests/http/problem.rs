//! Every refusal is `application/problem+json` with a code, a detail and the request's id.

use std::fmt::Write as _;

use poem::endpoint::make;
use poem::http::Method;
use poem::test::TestClient;
use poem::{Response, Route};
use serde_json::json;
use zhilian_sync::api::edge::Edge;

use crate::support::{Answered, TestApp};

#[tokio::test]
async fn every_error_of_the_framework_is_a_problem() {
    let app = TestApp::with(|settings| settings.server.body_bytes_max = 2048).await;
    let token = app.admin().await;
    let bearer = vec![("authorization", format!("Bearer {token}"))];
    let systems = "/api/v1/integrations/systems";
    let json_type = "application/json";
    let post = async |body: Option<(&str, String)>| app.send_raw(Method::POST, systems, &bearer, body).await;

    let nowhere = app.send_raw(Method::GET, "/nowhere", &[], None).await;
    insta::assert_snapshot!(problem(&nowhere), @"404 no_such_route: there is nothing at this path; see /api/v1/openapi.json");
    insta::assert_snapshot!(problem(&app.get("/nowhere", &token).await), @"404 no_such_route: there is nothing at this path; see /api/v1/openapi.json");
    insta::assert_snapshot!(problem(&app.send_raw(Method::PATCH, systems, &bearer, None).await), @r#"
    405 method_not_allowed: this path does not take `PATCH`; it takes GET, POST
    allow: GET, POST
    "#);
    insta::assert_snapshot!(problem(&post(Some((json_type, "{not json".to_owned()))).await), @"400 malformed_json: the body is not JSON: key must be a string at line 1 column 2");
    insta::assert_snapshot!(problem(&post(Some((json_type, "[]".to_owned()))).await), @"400 malformed_json: the body is not a JSON object");
    insta::assert_snapshot!(problem(&post(Some(("text/plain", "{}".to_owned()))).await), @"415 unsupported_media_type: the body's content type is not JSON; expected `application/json`");
    insta::assert_snapshot!(problem(&post(Some((json_type, "x".repeat(4096)))).await), @"413 body_too_large: the body is larger than allowed");
    insta::assert_snapshot!(problem(&post(Some((json_type, "{}".to_owned()))).await), @r#"
    422 invalid_values: `name` is missing; `type` is missing; `provider` is missing
    [{"detail":"is missing","field":"name"},{"detail":"is missing","field":"type"},{"detail":"is missing","field":"provider"}]
    "#);
    let not_an_id = app.get("/integrations/systems/not-an-id", &token).await;
    insta::assert_snapshot!(problem(&not_an_id), @"404 not_found: the path holds something that is not an id");
    let bad_limit = app.get("/integrations/systems?limit=501", &token).await;
    insta::assert_snapshot!(problem(&bad_limit), @r#"
    422 invalid_values: `limit` is not a whole number between 1 and 500
    [{"detail":"is not a whole number between 1 and 500","field":"limit"}]
    "#);
    let bad_cursor = app.get("/integrations/systems?cursor=x", &token).await;
    insta::assert_snapshot!(problem(&bad_cursor), @r#"
    422 invalid_values: `cursor` is not a cursor; take it from the `Link` header of the page before
    [{"detail":"is not a cursor; take it from the `Link` header of the page before","field":"cursor"}]
    "#);
    let bad_choice = app.get("/integrations/systems?type=shop", &token).await;
    insta::assert_snapshot!(problem(&bad_choice), @r#"
    422 invalid_values: `type` is not one of `pos`, `supplier`, `member`, `payment`, `delivery`, `erp`, `reservation`
    [{"detail":"is not one of `pos`, `supplier`, `member`, `payment`, `delivery`, `erp`, `reservation`","field":"type"}]
    "#);
}

#[tokio::test]
async fn our_own_routes_refuse_unknown_fields_by_name() {
    let app = TestApp::new().await;
    let token = app.admin().await;
    let system = app.system(&token, json!({})).await;
    let path = format!("/integrations/systems/{system}/pause");
    let refused = app.post(&path, &token, &json!({"reason": "holiday"})).await;
    insta::assert_snapshot!(problem(&refused), @r#"
    422 invalid_values: `reason` is not a field of this request
    [{"detail":"is not a field of this request","field":"reason"}]
    "#);
}

#[tokio::test]
async fn a_database_that_is_away_is_a_problem_too() {
    let mut app = TestApp::new().await;
    app.leave_work();
    let token = app.admin().await;
    app.store().close().await;
    let answered = app.get("/integrations/systems", &token).await;
    insta::assert_snapshot!(problem(&answered), @"503 database_unavailable: the database does not answer; try again in a moment");
    assert_eq!(answered.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn a_panic_and_a_handler_that_never_ends_are_problems_too() {
    let app = TestApp::with(|settings| settings.server.request_timeout_secs = 1).await;
    let router = Route::new()
        .at("/panic", make(|_| async { panics() }))
        .at("/endless", make(|_| std::future::pending::<poem::Result<Response>>()));
    let client = TestClient::new(Edge::new(app.app.clone(), router));
    let ask =
        async |path: &str| Answered::read(client.get(path).header("x-request-id", "test").send().await).await;
    insta::assert_snapshot!(problem(&ask("/panic").await), @"500 internal: the service failed; quote the request id when asking for help");
    insta::assert_snapshot!(problem(&ask("/endless").await), @"504 timeout: the request took too long; it may still have had its effect");
}

fn panics() -> poem::Result<Response> {
    panic!("this panic belongs to the test")
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_browsers_safe() {
    let app = TestApp::new().await;
    for path in ["/api/v1/health/live", "/nowhere"] {
        let answered = app.send_raw(Method::GET, path, &[], None).await;
        assert_eq!(answered.header("x-request-id"), Some("test"));
        assert_eq!(answered.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answered.header("x-frame-options"), Some("DENY"));
        assert_eq!(answered.header("cache-control"), Some("no-store"));
        assert!(answered.header("content-security-policy").unwrap().contains("default-src 'none'"));
    }
}

fn problem(answered: &Answered) -> String {
    assert_eq!(answered.header("content-type"), Some("application/problem+json"), "{}", answered.text);
    let body = answered.json();
    assert_eq!(body["status"], answered.status);
    assert_eq!(body["request_id"], "test");
    assert_eq!(body["type"], format!("/problems/{}", body["code"].as_str().unwrap()));
    let mut shown = format!(
        "{} {}: {}",
        answered.status,
        body["code"].as_str().unwrap(),
        body["detail"].as_str().unwrap()
    );
    if let Some(allow) = answered.header("allow") {
        write!(shown, "\nallow: {allow}").unwrap();
    }
    if let Some(errors) = body.get("errors") {
        write!(shown, "\n{errors}").unwrap();
    }
    shown
}
