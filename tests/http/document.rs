//! The OpenAPI document and the page made from it.

use poem::http::Method;
use zhilian_sync::config::Docs;

use crate::support::TestApp;

#[tokio::test]
async fn the_document_is_the_one_that_was_agreed() {
    let app = TestApp::new().await;
    let served = app.send_raw(Method::GET, "/api/v1/openapi.json", &[], None).await;
    assert_eq!(served.status, 200);
    insta::assert_json_snapshot!("openapi", served.json());
}

#[tokio::test]
async fn every_operation_has_words_and_every_body_of_ours_is_closed() {
    let app = TestApp::new().await;
    let document = zhilian_sync::api::openapi(&app.app);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(operation["security"].is_array(), "{method} {path} says nothing about who may call it");
            assert!(operation["responses"]["default"].is_object(), "{method} {path} has no problem");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().unwrap() {
            let described = property["description"].is_string() || property["allOf"].is_array();
            assert!(described, "{name}.{field} has no description");
        }
    }
    assert_eq!(document["components"]["schemas"]["Pause"]["additionalProperties"], false);
    assert_ne!(document["components"]["schemas"]["NewSystem"]["additionalProperties"], false);
}

#[tokio::test]
async fn the_page_shows_every_route_and_loads_nothing() {
    let app = TestApp::new().await;
    let page = app.send_raw(Method::GET, "/docs", &[], None).await;
    assert_eq!(page.status, 200);
    for route in zhilian_sync::api::ROUTES {
        assert!(page.text.contains(&format!("{} {}", route.method, route.path)), "{}", route.operation);
    }
    assert!(!page.text.contains("<script") && !page.text.contains("src=") && !page.text.contains("http"));
}

#[tokio::test]
async fn the_page_is_off_where_it_is_not_wanted() {
    let app = TestApp::with(|settings| settings.server.docs = Docs::Off).await;
    assert_eq!(app.send_raw(Method::GET, "/docs", &[], None).await.status, 404);
    let open = TestApp::with(|settings| settings.server.address = "0.0.0.0:8000".parse().unwrap()).await;
    assert_eq!(open.send_raw(Method::GET, "/docs", &[], None).await.status, 404);
}
