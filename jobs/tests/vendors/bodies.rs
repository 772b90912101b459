//! How the body of a request is written, and where the parameters of window, page and time go.

use serde_json::{Value, json};
use zhilian_sync_jobs::vendor::{PageRequest, PageToken};

use crate::server::{Asked, Reply, Server};
use crate::support::{Bench, KEY, WHOLE, assert_no_secret, first_page, manifest, window};

/// What arrives for a stream with these keys, and its sample.
async fn arrives(keys: &str, config: &Value) -> (Asked, String) {
    let text = manifest(&format!("answer.records = 'data'\n{keys}"));
    let bench = Bench::with(|_| {}, &text).await;
    let server = Server::start(|_| Reply::json(r#"{"data": []}"#)).await;
    let page = first_page(&bench.connect("test", &server.url(), config), "list").await.unwrap();
    (server.asked().pop().unwrap(), page.request_sample.to_string())
}

const SETTINGS: &str = "[config.big]\nlabel='b'\n[config.table]\nlabel='t'\ntype='table'\n";

#[tokio::test]
async fn a_form_holds_texts_and_json() {
    let keys = format!(
        "request.method='POST'\nrequest.path='/x'\nrequest.body_as='form'\nrequest.query.kind='a'\n\
         pagination.style='page'\npagination.page_param='no'\npagination.size=20\npagination.size_param='size'\n\
         [streams.list.request.body]\nbig='{{config.big}}'\nkey='{{credential.api_key}}'\nname='宫 保&鸡'\nnone='{{page.cursor}}'\n\
         biz={{ id='{{config.big}}', table='{{config.table}}', list=[1, true] }}\n{SETTINGS}"
    );
    let config = json!({"big": 9_007_199_254_740_993_u64, "table": {"null": null, "text": "1"}});
    let (asked, sample) = arrives(&keys, &config).await;
    assert_eq!(asked.target, "/x?kind=a");
    let members: Vec<(String, String)> =
        url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
    let biz = r#"{"id":9007199254740993,"list":[1,true],"table":{"null":null,"text":"1"}}"#;
    let expected = [
        ("big", "9007199254740993"),
        ("biz", biz),
        ("key", KEY),
        ("name", "宫 保&鸡"),
        ("no", "1"),
        ("size", "20"),
    ];
    assert_eq!(members, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    assert!(sample.contains("宫 保&鸡") && sample.contains(r#""key":"***""#), "{sample}");
    assert_no_secret(&sample);
}

#[tokio::test]
async fn a_form_may_be_a_setting_and_what_is_null_is_not_sent() {
    let keys = format!(
        "request={{ method='POST', path='/x', body_as='form', body='{{config.table}}' }}\n{SETTINGS}"
    );
    let (asked, _) = arrives(&keys, &json!({"table": {"a": null, "b": "", "c": false}})).await;
    assert_eq!(asked.body, "b=&c=false");
    assert!(asked.headers.contains("content-type: application/x-www-form-urlencoded"), "{}", asked.headers);
}

#[tokio::test]
async fn window_and_page_may_go_into_a_json_body() {
    let keys = "request={ method='POST', path='/x', params_in='body', body.shop='7' }\n\
                window={ format='unix', from_param='from', to_param='to' }\n\
                pagination={ style='offset', size=50, size_param='limit', offset_param='skip' }";
    let (asked, _) = arrives(keys, &json!({})).await;
    assert_eq!(asked.target, "/x");
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body,
        json!({"shop": "7", "from": 1_767_225_600, "to": 1_767_312_001, "limit": 50, "skip": 0})
    );
}

#[tokio::test]
async fn a_text_is_sent_as_it_is() {
    let keys = "request={ method='POST', path='/x', body_as='text', body='<q n=\"{page.size}\"/>', headers.Content-Type='text/xml' }\n\
                pagination={ style='none', size=5 }";
    let (asked, sample) = arrives(keys, &json!({})).await;
    assert_eq!(asked.body, "<q n=\"5\"/>");
    assert_eq!(asked.headers.matches("content-type: ").count(), 1, "{}", asked.headers);
    assert!(asked.headers.contains("content-type: text/xml"), "{}", asked.headers);
    assert!(sample.contains("<q n="), "{sample}");
}

#[tokio::test]
async fn the_time_is_the_same_everywhere_and_a_page_link_gets_a_new_one() {
    let keys = "request={ path='/x', query.own='{request.time}' }\npagination.style='link'\n\
                [connection]\nclock={ format='naive', zone='Asia/Shanghai' }\n\
                parameters={ ts='{request.time}', key='{credential.api_key}' }\nheaders.X-Time='{request.time}'\n\
                [signing]\nplace='query:sign'\nalgorithm='hmac_sha1'\nkey='{credential.api_key}'";
    let (asked, sample) = arrives(keys, &json!({})).await;
    // The clock stands at noon in UTC.
    let time = "2026-01-04 20:00:00";
    assert_eq!(asked.query("own").unwrap(), time);
    assert_eq!(asked.query("ts").unwrap(), time);
    assert!(asked.headers.contains(&format!("x-time: {time}")), "{}", asked.headers);
    assert!(sample.contains("sign=***"), "{sample}");

    let bench = Bench::with(|_| {}, &manifest(&format!("answer.records='data'\n{keys}"))).await;
    let server = Server::start(|_| Reply::json(r#"{"data": []}"#)).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let stream = connection.manifest().stream("list").unwrap();
    let next = PageToken::Link(format!("{}/x?own=kept&ts=old&sign=old&page=2", server.url()));
    let page = PageRequest { partition: &WHOLE, window: window(), next: Some(&next) };
    connection.fetch_page(stream, &page).await.unwrap();
    let asked = server.asked().pop().unwrap();
    let url = url::Url::parse(&format!("http://x{}", asked.target)).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let named = |name: &str| -> Vec<String> {
        pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(named("own"), ["kept"]);
    assert_eq!(named("ts"), [time]);
    assert_eq!(named("key"), [KEY]);
    assert_eq!(named("sign").iter().map(String::len).collect::<Vec<_>>(), [40]);
}

#[tokio::test]
async fn a_form_may_be_sent_part_by_part() {
    let keys = format!(
        "request.method='POST'\nrequest.path='/x'\nrequest.body_as='multipart'\n\
         pagination={{style='page', page_param='no'}}\n\
         [streams.list.request.body]\nbiz={{ a='{{config.big}}' }}\nkey='{{credential.api_key}}'\n'a\"b'='宫保\\r\\n--x'\n{SETTINGS}"
    );
    let (asked, sample) = arrives(&keys.replace("\\r\\n", " "), &json!({"big": 1})).await;
    let headers = asked.headers.to_lowercase();
    let boundary = headers.split("boundary=").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    let part = |name: &str, text: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let parts = [
        part("a%22b", "宫保 --x"),
        part("biz", r#"{"a":1}"#),
        part("key", KEY),
        part("no", "1"),
        format!("--{boundary}--\r\n"),
    ];
    assert_eq!(asked.body, parts.concat());
    assert!(sample.contains(r#""key":"***""#), "{sample}");
    assert_no_secret(&sample);
}
