//! What the shipped manifests ask for and how they take a refusal, against a vendor on loopback that answers
//! as the real one is documented to.

use std::collections::BTreeMap;

use http::HeaderMap;
use secrecy::SecretString;
use serde_json::{Value, json};
use zhilian_sync_jobs::Action;
use zhilian_sync_jobs::vendor::webhook::{Secrets, StoredDelivery};
use zhilian_sync_jobs::vendor::{Catalog, Connection, PageRequest};

use crate::server::{Asked, Reply, Server};
use crate::support::{Bench, KEY, all_pages, first_page, ids};

fn connect(
    bench: &Bench,
    provider: &str,
    server: &Server,
    config: &Value,
    credentials: &[&str],
) -> Connection {
    let mut spec = bench.spec(provider, &server.url(), config);
    spec.credentials = credentials
        .iter()
        .map(|name| ((*name).to_owned(), SecretString::from(format!("{name}-1"))))
        .collect::<BTreeMap<_, _>>();
    bench.vendors.connect(spec).unwrap_or_else(|error| panic!("{error}"))
}

fn header(asked: &Asked, name: &str) -> Option<String> {
    let mut lines = asked.headers.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// A member of the form that was sent.
fn form(asked: &Asked, name: &str) -> String {
    let mut members = url::form_urlencoded::parse(asked.body.as_bytes());
    members.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn shopify_is_read_along_its_links() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| match asked.query("page_info") {
        None => Reply::Whole(
            200,
            "Link: </admin/api/2025-07/orders.json?page_info=abc&limit=250>; rel=\"next\"\r\n",
            br#"{"orders": [{"id": 9007199254740993}]}"#.to_vec(),
        ),
        Some(_) => Reply::json(r#"{"orders": [{"id": 2}]}"#),
    })
    .await;
    let connection = bench.connect("shopify", &server.url(), &json!({"api_version": "2025-07"}));
    let stream = connection.manifest().stream("orders").unwrap();
    let pages = all_pages(&connection, stream).await.unwrap();
    assert_eq!(ids(&pages), ["9007199254740993", "2"]);
    let asked = server.asked();
    assert!(asked[0].target.starts_with("/admin/api/2025-07/orders.json?"), "{}", asked[0].target);
    assert_eq!(asked[0].query("updated_at_min").unwrap(), "2026-01-01T00:00:00.000Z");
    assert_eq!(asked[0].query("order").unwrap(), "updated_at asc");
    assert_eq!(asked[0].query("status").unwrap(), "any");
    // Beside `page_info` nothing but the limit is accepted.
    assert_eq!(asked[1].target, "/admin/api/2025-07/orders.json?page_info=abc&limit=250");
    assert!(asked.iter().all(|asked| header(asked, "X-Shopify-Access-Token").as_deref() == Some(KEY)));
}

#[tokio::test]
async fn loyverse_is_read_along_its_cursors() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| match asked.query("cursor") {
        None => Reply::json(r#"{"receipts": [{"id": 1}], "cursor": "cD0yMDI2"}"#),
        Some(_) => Reply::json(r#"{"receipts": []}"#),
    })
    .await;
    let connection = bench.connect("loyverse", &server.url(), &json!({}));
    let stream = connection.manifest().stream("receipts").unwrap();
    assert_eq!(ids(&all_pages(&connection, stream).await.unwrap()), ["1"]);
    let asked = server.asked();
    assert_eq!(asked[1].query("cursor").unwrap(), "cD0yMDI2");
    assert_eq!(asked[1].query("limit").unwrap(), "250");
    assert_eq!(asked[1].query("updated_at_min").unwrap(), "2026-01-01T00:00:00.000Z");
}

#[tokio::test]
async fn square_is_asked_for_the_customers_that_changed() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json("{}")).await;
    let connection = bench.connect("square", &server.url(), &json!({"location_ids": ["L1"]}));
    assert!(first_page(&connection, "customers").await.unwrap().records.is_empty());
    let body: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
    let updated = json!({"start_at": "2026-01-01T00:00:00.000Z", "end_at": "2026-01-02T00:00:00.500Z"});
    assert_eq!(body, json!({"limit": 100, "query": {"filter": {"updated_at": updated}}}));
}

/// One list that is not allowed must not stop the others.
#[tokio::test]
async fn a_scope_that_is_missing_for_customers_leaves_the_system_alone() {
    let (square, shopify) = (json!({"location_ids": ["L1"]}), json!({"api_version": "2025-07"}));
    let scopes = r#"{"errors": [{"category": "AUTHENTICATION_ERROR", "code": "INSUFFICIENT_SCOPES", "detail": "It must authorize @"}]}"#;
    let approval = r#"{"errors": "[API] This action requires merchant approval for @ scope."}"#;
    for (provider, config, answer, scope, action) in [
        ("square", &square, scopes, "CUSTOMERS_READ", Action::GiveUp),
        ("square", &square, scopes, "ORDERS_READ", Action::Unauthorized),
        ("shopify", &shopify, approval, "read_customers", Action::GiveUp),
        ("shopify", &shopify, approval, "read_orders", Action::Unauthorized),
    ] {
        let bench = Bench::new().await;
        let answer = answer.replace('@', scope);
        let server = Server::start(move |_| Reply::status(403, "", &answer)).await;
        let stream = if action == Action::GiveUp { "customers" } else { "orders" };
        let connection = bench.connect(provider, &server.url(), config);
        let error = first_page(&connection, stream).await.unwrap_err();
        assert_eq!(error.action, action, "{error}");
    }
}

#[tokio::test]
async fn an_error_of_aoqiwei_fails_the_test_of_the_connection() {
    for (answer, words) in [
        (r#"{"success": true, "code": 1001, "msg": "签名错误", "data": null}"#, Some("签名错误")),
        (r#"{"success": false, "code": 0, "msg": "appkey 无效"}"#, Some("appkey 无效")),
        (r#"{"errcode": 40001, "errmsg": "no such brand"}"#, Some("no such brand")),
        (r#"{"errcode": 0, "data": []}"#, None),
        (r#"{"success": true, "code": 0, "msg": "", "data": {"list": [], "total": 0}}"#, None),
    ] {
        let bench = Bench::new().await;
        let server = Server::start(move |_| Reply::json(answer)).await;
        let connection = connect(&bench, "aoqiwei-scm", &server, &json!({}), &["appkey", "appsecret"]);
        match (connection.probe().await, words) {
            (Ok(report), None) => assert_eq!(report.message, "Connected to Aoqiwei SCM"),
            (Err(error), Some(words)) => assert!(error.message.contains(words), "{error}"),
            (outcome, _) => panic!("{answer}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn the_fields_of_aoqiwei_are_the_systems_to_say() {
    let catalog = Catalog::embedded().unwrap();
    let config = json!({
        "fields": {"order_number": "billNo", "total": "money"}, "money_unit": "minor", "keep_if": "record.status == 2",
    });
    let manifest = catalog.resolve("aoqiwei-scm", config.as_object().unwrap()).unwrap();
    let body = json!({"code": 0, "data": [
        {"billNo": "B-1", "money": 128_050, "status": 2, "supplierName": "湘菜食材"}, {"billNo": "B-2", "status": 1},
    ]});
    let mapped =
        zhilian_sync_jobs::vendor::replay(&manifest, "orders", &body, chrono::DateTime::UNIX_EPOCH).unwrap();
    assert_eq!((mapped.orders.len(), mapped.skipped), (1, 1));
    assert_eq!((mapped.orders[0].order_number.as_str(), mapped.orders[0].total), ("B-1", 128_050));
    assert_eq!(mapped.orders[0].supplier_name.as_deref(), Some("湘菜食材"));
}

#[tokio::test]
async fn pinzhi_is_read_for_each_store_and_day() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| {
        if asked.target.starts_with("/pinzhi/organizations.do") {
            return Reply::json(r#"{"success": 0, "res": [{"ognid": 12346}, {"ognid": 12345}]}"#);
        }
        let of = |name| form(asked, name);
        let bill = |number| format!(r#"{{"id": "{}-{}-{number}"}}"#, of("ognid"), of("businessDate"));
        // A full page, and one that is not.
        let bills: Vec<String> = match of("pageIndex").as_str() {
            "1" => (0..100).map(bill).collect(),
            _ => vec![bill(100)],
        };
        Reply::json(format!(r#"{{"success": 0, "res": [{}]}}"#, bills.join(",")))
    })
    .await;
    let connection = connect(&bench, "pinzhi", &server, &json!({}), &["token"]);
    let stream = connection.manifest().stream("bills").unwrap();
    let stores = connection.partitions(stream).await.unwrap();
    assert_eq!(stores.iter().map(|store| store.key.as_str()).collect::<Vec<_>>(), ["12345", "12346"]);
    let window = connection.newest_of(stream, crate::support::window());
    let request = PageRequest { partition: &stores[0], window, next: None };
    let first = connection.fetch_page(stream, &request).await.unwrap();
    assert_eq!(first.records[0], json!({"id": "12345-2026-01-02-0", "store": {"ognid": 12345}}));
    let next = first.next.unwrap();
    let last = connection.fetch_page(stream, &PageRequest { next: Some(&next), ..request }).await.unwrap();
    assert_eq!((last.records.len(), last.next), (1, None));

    let asked = server.asked();
    // `&token=token-1`, and the parameters without the pages.
    assert_eq!(asked[0].target, "/pinzhi/organizations.do?sign=10c58bbfa8b0369bdf86c7bec143d84a");
    let signs: Vec<String> = asked[1..].iter().map(|asked| form(asked, "sign")).collect();
    assert_eq!(signs[0], signs[1], "pages are not signed");
    assert_eq!(form(&asked[2], "pageIndex"), "2");
    assert_eq!(form(&asked[2], "pageSize"), "100");
}

#[tokio::test]
async fn an_error_of_pinzhi_comes_with_a_status_of_200() {
    for (answer, action) in [
        (r#"{"success": 1, "msg": "sign error"}"#, Some(Action::Unauthorized)),
        (r#"{"errcode": 5, "errmsg": "服务器错误"}"#, Some(Action::Retry { after: None })),
        (r#"{"errcode": 0, "errmsg": "", "data": [{"ognid": 1}]}"#, None),
    ] {
        let bench = Bench::new().await;
        let server = Server::start(move |_| Reply::json(answer)).await;
        let connection = connect(&bench, "pinzhi", &server, &json!({}), &["token"]);
        match (connection.probe().await, action) {
            (Ok(report), None) => assert_eq!(report.message, "Connected to Pinzhi (stores: 1)"),
            (Err(error), Some(action)) => assert_eq!(error.action, action, "{error}"),
            (outcome, _) => panic!("{answer}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn tiancai_is_read_page_by_page_with_its_token() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| match (asked.target.starts_with("/api/auth/"), asked.query("pageNo")) {
        (true, _) => Reply::json(r#"{"code": "0", "msg": "success", "access_token": "tok-1", "expires_in": 1200}"#),
        (false, Some(page)) => Reply::json(format!(
            r#"{{"code": "0", "success": true, "data": {{"billList": [{{"id": {page}}}], "pageInfo": {{"pageTotal": 2}}}}}}"#
        )),
        _ => Reply::status(404, "", ""),
    })
    .await;
    let config = json!({"center_id": "C1", "shop_id": "S1"});
    let connection = connect(&bench, "tiancai-shanglong", &server, &config, &["appid", "accessid"]);
    let stream = connection.manifest().stream("bills").unwrap();
    // Neither page is full: the vendor says how many there are.
    assert_eq!(ids(&all_pages(&connection, stream).await.unwrap()), ["1", "2"]);
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "one token serves both pages");
    assert_eq!(asked[0].query("appid").unwrap(), "appid-1");
    assert_eq!(asked[0].query("response_type").unwrap(), "token");
    assert_eq!(header(&asked[0], "granttype"), None);
    for (asked, page) in asked[1..].iter().zip(["1", "2"]) {
        assert_eq!(header(asked, "access_token").as_deref(), Some("tok-1"));
        assert_eq!(header(asked, "accessid").as_deref(), Some("accessid-1"));
        assert_eq!(header(asked, "granttype").as_deref(), Some("client"));
        assert_eq!(
            (asked.query("pageNo").as_deref(), asked.query("shopId").as_deref()),
            (Some(page), Some("S1"))
        );
        assert_eq!(asked.query("beginDate").unwrap(), "2026-01-01 08:00:00");
        assert_eq!(asked.body, "");
    }
}

#[tokio::test]
async fn tiancai_is_asked_for_a_new_token_when_the_old_one_has_ended() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| {
        if asked.target.starts_with("/api/auth/") {
            return Reply::json(r#"{"code": "0", "access_token": "tok-1", "expires_in": 1200}"#);
        }
        Reply::json(r#"{"code": "1", "msg": "access_token 已失效", "success": false}"#)
    })
    .await;
    let config = json!({"center_id": "C1", "shop_id": "S1"});
    let connection = connect(&bench, "tiancai-shanglong", &server, &config, &["appid", "accessid"]);
    let error = connection.probe().await.unwrap_err();
    assert!(error.message.contains("已失效"), "{error}");
    let tokens = server.asked().iter().filter(|asked| asked.target.starts_with("/api/auth/")).count();
    assert_eq!(tokens, 2, "asked for once more, and no oftener");
}

#[tokio::test]
async fn an_error_of_meituan_comes_with_a_status_of_200() {
    for (answer, action) in [
        (r#"{"data": "ng", "error": {"code": 703, "msg": "签名验证错误"}}"#, Some(Action::Unauthorized)),
        (r#"{"data": "ng", "error": {"code": 711, "msg": "限流"}}"#, Some(Action::Retry { after: None })),
        (r#"{"data": ["S01", "S02"]}"#, None),
    ] {
        let bench = Bench::new().await;
        let server = Server::start(move |_| Reply::json(answer)).await;
        let connection = connect(&bench, "meituan-waimai", &server, &json!({}), &["app_id", "secret"]);
        match (connection.probe().await, action) {
            (Ok(report), None) => assert_eq!(report.message, "Connected to Meituan Waimai"),
            (Err(error), Some(action)) => assert_eq!(error.action, action, "{error}"),
            (outcome, _) => panic!("{answer}: {outcome:?}"),
        }
    }
}

/// Webhooks of a personal token are not signed: the secret is in the address.
#[test]
fn loyverse_webhooks_may_have_their_secret_in_the_address() {
    let catalog = Catalog::embedded().unwrap();
    let config = json!({"webhook_scheme": "url_secret", "webhook_signature": "query:token"});
    let manifest = catalog.resolve("loyverse", config.as_object().unwrap()).unwrap();
    let (_, spec) = catalog.webhook_of(&manifest);
    let verdict = |query: &str| {
        let stored = StoredDelivery {
            method: "POST".into(),
            url: "https://hub.example/hook".into(),
            query: query.into(),
            headers: HeaderMap::new(),
            body: br#"{"type": "receipts.update", "receipts": []}"#.to_vec(),
            received_at: chrono::DateTime::UNIX_EPOCH,
        };
        let secrets: Secrets = [("secret".to_owned(), "a-long-random-secret".into())].into_iter().collect();
        spec.verify(&stored.as_delivery(), &secrets).map_err(|refusal| refusal.code)
    };
    assert_eq!(verdict("token=a-long-random-secret"), Ok(()));
    assert!(verdict("token=another").is_err() && verdict("").is_err());
}
