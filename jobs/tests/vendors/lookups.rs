//! Records that are asked for one by one, by their keys.

use serde_json::{Value, json};
use zhilian_sync_jobs::outcome::Action;
use zhilian_sync_jobs::vendor::{Connection, PageRequest, PageToken};

use crate::server::{Reply, Server};
use crate::support::{Bench, WHOLE, assert_no_secret, first_page, manifest, read, window};

fn looked_up(more: &str) -> String {
    manifest(&format!(
        "lookup.keys='customer_phones'\nlookup.into='asked'\nrequest.path='/members/{{lookup.key}}'\n\
         answer.records=['data', 'list']\nmapping.fields.status='asked'\n{more}"
    ))
}

fn connect(bench: &Bench, server: &Server, keys: &[&str]) -> Connection {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    bench.connect("test", &server.url(), &json!({})).with_lookup_keys(keys)
}

#[tokio::test]
async fn each_key_is_a_call_and_one_that_nobody_has_is_no_mistake() {
    let bench = Bench::with(|_| {}, &looked_up("")).await;
    let server = Server::start(|asked| match asked.target.as_str() {
        "/members/138" => Reply::json(r#"{"data": {"id": 1}}"#),
        "/members/139" => Reply::json(r#"{"list": [{"id": 2}, {"id": 3}]}"#),
        "/members/a%2Fb" => Reply::json(r#"{"data": null}"#),
        _ => Reply::status(404, "", "{}"),
    })
    .await;
    let connection = connect(&bench, &server, &["138", "139", "140", "a/b"]);
    let stream = connection.manifest().stream("list").unwrap();
    let page = first_page(&connection, "list").await.unwrap();
    let expected = [
        json!({"id": 1, "asked": "138"}),
        json!({"id": 2, "asked": "139"}),
        json!({"id": 3, "asked": "139"}),
    ];
    assert_eq!(page.records, expected);
    assert_eq!((page.undetailed.len(), &page.next, page.vendor_time), (0, &None, None));
    let mapped = connection.map_page(stream, &page);
    let found: Vec<_> =
        mapped.records.iter().map(|one| (one.external_id.as_str(), one.status.as_deref())).collect();
    assert_eq!(found, [("1", Some("138")), ("2", Some("139")), ("3", Some("139"))]);
    assert_no_secret(&page.request_sample.to_string());
}

#[tokio::test]
async fn a_key_that_is_refused_fails_alone() {
    let bench = Bench::with(|_| {}, &looked_up("")).await;
    let server = Server::start(|asked| match asked.target.as_str() {
        "/members/138" => Reply::json(r#"{"data": {"id": 1}}"#),
        _ => Reply::status(422, "", r#"{"message": "no number"}"#),
    })
    .await;
    let connection = connect(&bench, &server, &["138", "x"]);
    let stream = connection.manifest().stream("list").unwrap();
    let page = first_page(&connection, "list").await.unwrap();
    let mapped = connection.map_page(stream, &page);
    assert_eq!((mapped.records.len(), mapped.failures.len()), (1, 1));
    let failure = &mapped.failures[0];
    assert_eq!(failure.raw, r#"{"lookup_key":"x"}"#);
    assert!(
        failure.reason.starts_with("it cannot be looked up: Acme refuses the request"),
        "{}",
        failure.reason
    );
}

#[tokio::test]
async fn what_may_pass_fails_the_page_and_a_foreign_position_the_run() {
    let bench = Bench::with(|_| {}, &looked_up("")).await;
    let server = Server::start(|asked| match asked.target.as_str() {
        "/members/138" => Reply::json(r#"{"data": {"id": 1}}"#),
        _ => Reply::status(503, "", ""),
    })
    .await;
    let connection = connect(&bench, &server, &["138", "139"]);
    let error = first_page(&connection, "list").await.unwrap_err();
    assert_eq!(error.action, Action::Retry { after: None }, "{error}");
    let stream = connection.manifest().stream("list").unwrap();
    let next = PageToken::Page(2);
    let request = PageRequest { partition: &WHOLE, window: window(), next: Some(&next) };
    assert_eq!(connection.fetch_page(stream, &request).await.unwrap_err().code, "bad_position");
}

#[test]
fn what_belongs_to_a_list_has_no_place_beside_a_lookup() {
    let mistakes = |text: &str| read(text).unwrap_err();
    for (more, says) in [
        (
            "pagination={style='page', page_param='page'}",
            "`streams.list.lookup.keys`: stands beside `pagination`",
        ),
        ("for_each.values=[1]", "`streams.list.lookup.keys`: stands beside `for_each`"),
        ("ascending=true", "`streams.list.lookup.keys`: stands beside `ascending`"),
        ("detail={path='/{lookup.key}/{record.id}', record='.'}", "`{lookup.key}` has a value only in"),
        ("lookup.size=0", "streams.list.lookup.size"),
    ] {
        let found = mistakes(&looked_up(more));
        assert!(found.contains(says), "{more}: {found}");
    }
    let without = looked_up("").replace("/{lookup.key}", "");
    assert!(mistakes(&without).contains("nothing in the request says `{lookup.key}`"));
    let elsewhere = manifest("request.path='/{lookup.key}'\nanswer.records='data'");
    assert!(mistakes(&elsewhere).contains("`{lookup.key}` has a value only in the request of a stream with"));
    let no_keys = looked_up("").replace("lookup.keys='customer_phones'", "lookup.keys='names'");
    assert!(mistakes(&no_keys).contains("customer_phones"), "{}", mistakes(&no_keys));
}

/// The keys of the vendors that we ship, which answer errors with a status of 200.
#[tokio::test]
async fn a_member_that_the_shipped_vendors_do_not_have_is_no_mistake() {
    let none = json!({"errcode": 1011, "errmsg": "会员不存在"});
    let refused = json!({"errcode": 1002, "errmsg": "手机号格式错误"});
    let member = json!({"errcode": 0, "errmsg": "OK", "res": {"cno": "1", "mobile": "138"}});
    let bench = Bench::new().await;
    let server = Server::start(move |asked| {
        let form: Vec<(String, String)> =
            url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
        let req: Value =
            serde_json::from_str(&form.iter().find(|(name, _)| name == "req").unwrap().1).unwrap();
        let answer = match req["mobile"].as_str().unwrap() {
            "138" => &member,
            "139" => &none,
            _ => &refused,
        };
        Reply::json(answer.to_string())
    })
    .await;
    let mut spec = bench.spec("aoqiwei-crm", &server.url(), &json!({"appid": "dp_demo"}));
    spec.credentials = [("appkey".to_owned(), "appkey-1".into())].into();
    let connection = bench.vendors.connect(spec).unwrap();
    let connection = connection.with_lookup_keys(["138", "139", "x"].map(str::to_owned).to_vec());
    let stream = connection.manifest().stream("members").unwrap();
    let page = first_page(&connection, "members").await.unwrap();
    let mapped = connection.map_page(stream, &page);
    assert_eq!((mapped.members.len(), mapped.failures.len()), (1, 1));
    assert!(mapped.failures[0].reason.contains("手机号格式错误"), "{}", mapped.failures[0].reason);
}
