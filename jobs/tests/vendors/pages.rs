//! Every way of turning pages, walked to its end.

use serde_json::json;

use crate::server::{Reply, Server};
use crate::support::{Bench, KEY, all_pages, assert_no_secret, ids, manifest};

/// Seven records in pages of three.
fn page_of(from: usize) -> Vec<serde_json::Value> {
    (from..(from + 3).min(7)).map(|id| json!({"id": id})).collect()
}

const ALL: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];

async fn walk(rest: &str, server: &Server) -> (Vec<String>, usize) {
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let pages = all_pages(&connection, connection.manifest().stream("list").unwrap()).await.unwrap();
    (ids(&pages), pages.len())
}

#[tokio::test]
async fn by_number_until_a_short_page() {
    let server = Server::start(|asked| {
        let page: usize = asked.query("p").unwrap().parse().unwrap();
        Reply::json(json!({"rows": page_of((page - 1) * 3)}).to_string())
    })
    .await;
    let rest = "request.path = '/x'\nanswer.records = 'rows'\npagination = { style = 'page', size = 3, page_param = 'p' }\n";
    assert_eq!(walk(rest, &server).await, (ALL.map(String::from).to_vec(), 3));
}

#[tokio::test]
async fn by_number_as_far_as_the_vendor_says() {
    let server = Server::start(|asked| {
        let page: usize = asked.query("p").unwrap().parse().unwrap();
        // The second page has lost its records: the total, not the short page, ends the list.
        let rows = if page == 1 { Vec::new() } else { page_of(page * 3) };
        Reply::json(json!({"rows": rows, "pages": "3"}).to_string())
    })
    .await;
    let rest = "request.path = '/x'\nanswer.records = 'rows'\n\
                pagination = { style = 'page', size = 3, first_page = 0, page_param = 'p', total_pages = 'pages' }\n";
    assert_eq!(walk(rest, &server).await.0, ["0", "1", "2", "6"]);
}

#[tokio::test]
async fn by_offset_in_the_body() {
    let server = Server::start(|asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(body["page"]["limit"], 3);
        let offset: usize = body["page"]["offset"].to_string().parse().unwrap();
        Reply::json(json!({"rows": page_of(offset), "total": 7}).to_string())
    })
    .await;
    let rest = "request = { method = 'POST', path = '/x', body = { page = { offset = '{page.offset}', limit = '{page.size}' } } }\n\
                answer.records = 'rows'\npagination = { style = 'offset', size = 3, total_records = 'total' }\n";
    assert_eq!(walk(rest, &server).await, (ALL.map(String::from).to_vec(), 3));
}

#[tokio::test]
async fn by_cursor_in_the_query_and_in_the_body() {
    let answer = |cursor: Option<String>| {
        let from: usize = cursor.map_or(0, |cursor| cursor.trim_start_matches("after ").parse().unwrap());
        let mut body = json!({"rows": page_of(from)});
        if from + 3 < 7 {
            body["next"] = json!(format!("after {}", from + 3));
        }
        Reply::json(body.to_string())
    };
    let by_query = Server::start(move |asked| answer(asked.query("c"))).await;
    let rest = "request.path = '/x'\nanswer.records = 'rows'\npagination = { style = 'cursor', cursor_param = 'c', cursor = 'next' }\n";
    assert_eq!(walk(rest, &by_query).await, (ALL.map(String::from).to_vec(), 3));
    assert_eq!(by_query.asked()[0].query("c"), None, "the first page has no cursor");

    let by_body = Server::start(move |asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
        answer(body.get("cursor").map(|cursor| cursor.as_str().unwrap().to_owned()))
    })
    .await;
    let rest = "request = { method = 'POST', path = '/x', body = { cursor = '{page.cursor}' } }\n\
                answer.records = 'rows'\npagination = { style = 'cursor', cursor = 'next' }\n";
    assert_eq!(walk(rest, &by_body).await, (ALL.map(String::from).to_vec(), 3));
    assert_eq!(by_body.asked()[0].body, "{}");
}

#[tokio::test]
async fn by_link_header() {
    let server = Server::start(|asked| {
        let from: usize = asked.query("from").map_or(0, |from| from.parse().unwrap());
        let next = match from {
            0 => "Link: </x?from=3&sig=a%2Bb>; rel=\"next\", </x>; rel=\"first\"\r\n",
            3 => "Link: </x>; rel=first\r\nLink: </x?from=6>; rel=next\r\n",
            _ => "Link: </x>; rel=first\r\n",
        };
        Reply::Whole(200, next, json!(page_of(from)).to_string().into_bytes())
    })
    .await;
    let rest = "request = { path = '/x', query = { size = '3' } }\nanswer.records = '.'\npagination.style = 'link'\n";
    assert_eq!(walk(rest, &server).await, (ALL.map(String::from).to_vec(), 3));
    let asked = server.asked();
    assert_eq!(asked[0].target, "/x?size=3");
    assert_eq!(asked[1].target, "/x?from=3&sig=a%2Bb", "the vendor's address is called as it is");
    assert!(asked.iter().all(|asked| asked.headers.contains("Bearer")), "{asked:?}");
}

#[tokio::test]
async fn a_link_that_repeats_the_key_is_kept_without_it() {
    let server = Server::start(|asked| {
        assert_eq!(asked.query("key").unwrap(), KEY, "every page is asked for with the key");
        let from: usize = asked.query("from").map_or(0, |from| from.parse().unwrap());
        let next = if from == 0 { "Link: </x?key=sk-canary-7Jx%2B%2F9q&from=3>; rel=next\r\n" } else { "" };
        Reply::Whole(200, next, json!(page_of(from)).to_string().into_bytes())
    })
    .await;
    let rest = "request = { path = '/x', query = { key = '{credential.api_key}' } }\nanswer.records = '.'\npagination.style = 'link'\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let pages = all_pages(&connection, connection.manifest().stream("list").unwrap()).await.unwrap();
    assert_eq!(ids(&pages), ["0", "1", "2", "3", "4", "5"]);
    assert_no_secret(&serde_json::to_string(&pages[0].next).unwrap());

    let cursor = Server::start(|_| Reply::json(json!({"rows": [], "next": KEY}).to_string())).await;
    let rest = "request.path = '/x'\nanswer.records = 'rows'\npagination = { style = 'cursor', cursor_param = 'c', cursor = 'next' }\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let connection = bench.connect("test", &cursor.url(), &json!({}));
    let error = all_pages(&connection, connection.manifest().stream("list").unwrap()).await.unwrap_err();
    assert_eq!(error.code, "page_link_refused");
}

#[tokio::test]
async fn a_link_to_another_host_is_refused() {
    let elsewhere = Server::start(|_| Reply::json("[]")).await;
    let link: &'static str =
        Box::leak(format!("Link: <{}/x>; rel=next\r\n", elsewhere.url()).into_boxed_str());
    let server = Server::start(move |_| Reply::Whole(200, link, b"[]".to_vec())).await;
    let bench = Bench::with(
        |_| {},
        &manifest("request.path = '/x'\nanswer.records = '.'\npagination.style = 'link'\n"),
    )
    .await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let error = all_pages(&connection, connection.manifest().stream("list").unwrap()).await.unwrap_err();
    assert_eq!(error.code, "page_link_refused", "{error}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_cursor_that_repeats_ends_the_list() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json(r#"{"orders": [{"id": "1"}], "cursor": "same"}"#)).await;
    let connection = bench.connect("square", &server.url(), &json!({"location_ids": ["L1"]}));
    let error = all_pages(&connection, connection.manifest().stream("orders").unwrap()).await.unwrap_err();
    assert_eq!(error.code, "cursor_repeats");
    assert!(error.message.contains("cursor repeats"), "{error}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn pages_without_end_have_an_end() {
    let server = Server::start(|_| Reply::json(r#"{"rows": [{"id": 1}]}"#)).await;
    let rest = "pages_max = 5\nrequest.path = '/x'\nanswer.records = 'rows'\npagination = { style = 'page', page_param = 'p' }\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let error = all_pages(&connection, connection.manifest().stream("list").unwrap()).await.unwrap_err();
    assert_eq!(error.code, "too_many_pages");
    assert_eq!(server.asked().len(), 5);
    assert_eq!(bench.settings.pages_max, 100);
}
