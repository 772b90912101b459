//! The OpenAPI document and the page made from it.

use std::collections::BTreeSet;

use poem::http::Method;
use serde_json::Value;
use zhilian_sync::api::access::Access;
use zhilian_sync::api::document::examples;
use zhilian_sync::api::{ROUTES, Route};
use zhilian_sync::config::Docs;

use crate::support::TestApp;

/// An id that nothing has.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn the_document_is_the_one_that_was_agreed() {
    let app = TestApp::new().await;
    let served = app.send_raw(Method::GET, "/api/v1/openapi.json", &[], None).await;
    assert_eq!(served.status, 200);
    insta::assert_json_snapshot!("openapi", served.json());
}

/// Every operation of the document, with its line of the route table.
fn operations(document: &Value) -> impl Iterator<Item = (&'static Route, &Value)> {
    ROUTES.iter().map(|route| {
        let method = route.method.as_str().to_ascii_lowercase();
        (route, &document["paths"][route.path][method])
    })
}

#[tokio::test]
async fn every_operation_has_words_and_every_body_of_ours_is_closed() {
    let app = TestApp::new().await;
    let document = zhilian_sync::api::openapi(&app.app);
    for (route, operation) in operations(&document) {
        let id = route.operation;
        assert!(operation["summary"].is_string(), "`{id}` has no summary");
        assert!(operation["security"].is_array(), "`{id}` says nothing about who may call it");
        assert!(operation["responses"]["default"].is_object(), "`{id}` has no problem");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let described = property["description"].is_string() || property["allOf"].is_array();
            assert!(described, "{name}.{field} has no description");
        }
    }
    assert_eq!(document["components"]["schemas"]["Pause"]["additionalProperties"], false);
    assert_ne!(document["components"]["schemas"]["NewSystem"]["additionalProperties"], false);
}

#[tokio::test]
async fn every_operation_lists_the_errors_that_follow_from_its_form() {
    let app = TestApp::new().await;
    let document = zhilian_sync::api::openapi(&app.app);
    for (route, operation) in operations(&document) {
        let mut expected = Vec::new();
        if route.access != Access::Public {
            expected.extend(["401", "503"]);
        }
        if route.path.contains('{') {
            expected.push("404");
        }
        if operation["requestBody"]["content"].get("application/json").is_some() {
            expected.extend(["400", "413", "415", "422"]);
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        if parameters.into_iter().any(|parameter| parameter["in"] == "query") {
            expected.push("422");
        }
        for status in expected {
            let response = &operation["responses"][status];
            assert!(response.is_object(), "`{}` does not list {status}", route.operation);
            if let Some(reference) = response["$ref"].as_str() {
                let shared = document.pointer(reference.trim_start_matches('#'));
                assert!(shared.unwrap()["description"].is_string(), "{reference} is nowhere");
            }
        }
    }
}

#[tokio::test]
async fn every_body_has_an_example_that_its_operation_can_read() {
    let mut app = TestApp::new().await;
    app.leave_work();
    let token = app.admin().await;
    let document = zhilian_sync::api::openapi(&app.app);
    let mut shown = BTreeSet::new();
    for (route, operation) in operations(&document) {
        let Some(media) = operation["requestBody"]["content"].get("application/json") else {
            continue;
        };
        let schema = media["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let example = media.get("example").unwrap_or_else(|| {
            panic!("`{schema}` of `{}` has no example in src/api/document/examples.json", route.operation)
        });
        // A batch shows the example of its record.
        shown.insert(schema.strip_suffix("Batch").unwrap_or(schema).to_owned());
        let path = route.path.split('/').map(|part| if part.starts_with('{') { NOBODY } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        let answered = app.send(route.method.clone(), &path, Some(&token), Some(example)).await;
        let read = !matches!(answered.status, 400 | 413 | 415 | 422);
        assert!(read, "the example of `{schema}` is refused by `{}`: {}", route.operation, answered.text);
    }
    let known: BTreeSet<String> = examples::all().keys().cloned().collect();
    assert_eq!(known, shown, "src/api/document/examples.json shows bodies that no operation takes");
}

#[tokio::test]
async fn links_lead_from_what_is_made_to_what_can_be_done_with_it() {
    let app = TestApp::new().await;
    let document = zhilian_sync::api::openapi(&app.app);
    let mut reached = BTreeSet::new();
    for (route, operation) in operations(&document) {
        for (_, response) in operation["responses"].as_object().unwrap() {
            for (_, link) in response["links"].as_object().into_iter().flatten() {
                let target = link["operationId"].as_str().unwrap();
                let to = ROUTES.iter().find(|route| route.operation == target).unwrap();
                for (parameter, _) in link["parameters"].as_object().unwrap() {
                    let placeholder = format!("{{{parameter}}}");
                    assert!(to.path.contains(&placeholder), "{} links to {target} wrongly", route.operation);
                }
                reached.insert(target.to_owned());
            }
        }
    }
    let unreached = ROUTES.iter().filter(|route| route.path.matches('{').count() == 1);
    let unreached: Vec<&str> =
        unreached.map(|route| route.operation).filter(|operation| !reached.contains(*operation)).collect();
    // A session is listed and ended, and never shown alone; tests/http/users.rs ends one.
    assert_eq!(unreached, ["end_session"], "nothing leads to these, so nothing tries them on what is there");
}

#[tokio::test]
async fn the_page_shows_every_route_and_loads_nothing() {
    let app = TestApp::new().await;
    let page = app.send_raw(Method::GET, "/docs", &[], None).await;
    assert_eq!(page.status, 200);
    for route in ROUTES {
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
