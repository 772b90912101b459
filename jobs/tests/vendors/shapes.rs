//! Lists whose elements are no records yet, JSON inside of texts, sums over lists, and lists that are read from
//! change to change.

use serde_json::{Value, json};
use zhilian_sync_jobs::vendor::{Mapped, PageToken, replay};

use crate::server::{Reply, Server};
use crate::support::{Bench, all_pages, first_page, ids, manifest, read};

fn mistakes(text: &str) -> String {
    read(text).unwrap_err()
}

/// A manifest whose records have their id elsewhere than at `id`.
fn with_own_id(rest: &str) -> String {
    manifest(rest).replace("mapping.fields.external_id = 'id'\n", "")
}

fn mapped(text: &str, body: &Value) -> Mapped {
    let manifest = read(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    replay(&manifest, "list", body, chrono::DateTime::UNIX_EPOCH).unwrap()
}

fn all_ids(mapped: &Mapped) -> Vec<&str> {
    mapped.records.iter().map(|one| one.external_id.as_str()).collect()
}

#[tokio::test]
async fn an_element_may_hold_several_records_and_pages_count_elements() {
    let text = manifest(
        "request.path='/'\npagination={style='page', page_param='page', size=2}\n\
         answer={records='shops', split='bills', split_into='shop'}\nmapping.fields.shop='shop.no'",
    );
    let bench = Bench::with(|_| {}, &text).await;
    let server = Server::start(|asked| match asked.query("page").as_deref() {
        Some("1") => Reply::json(
            r#"{"shops": [{"no": "S1", "bills": [{"id": 1}, {"id": 2}, {"id": 3}]}, {"no": "S2", "bills": "none"}]}"#,
        ),
        _ => Reply::json(r#"{"shops": [{"no": "S3", "bills": [{"id": 4}]}]}"#),
    })
    .await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let stream = connection.manifest().stream("list").unwrap();
    let pages = all_pages(&connection, stream).await.unwrap();
    assert_eq!(ids(&pages), ["1", "2", "3", "4"]);
    let first = connection.map_page(stream, &pages[0]);
    assert_eq!(first.records[2].shop.as_deref(), Some("S1"));
    // What holds no list of bills is told, not lost.
    assert_eq!(first.failures.len(), 1);
    assert!(first.failures[0].reason.contains("`bills`"), "{}", first.failures[0].reason);
}

#[test]
fn several_rows_may_be_one_record() {
    let text = with_own_id(
        "request.path='/'\nanswer={records='rows', group_by='bill', group_into='lines'}\n\
         mapping.fields.external_id='bill'\nmapping.money_unit='major'\n\
         mapping.fields.amount={sum=['lines.*.money', '-lines.*.off.0']}\n\
         mapping.fields.data={fields={lines={each='lines', fields={item='item'}}}}",
    );
    let body = json!({"rows": [
        {"bill": "A", "item": "fish", "money": "12.50", "off": [1]},
        {"bill": "B", "item": "rice", "money": 2},
        {"bill": "A", "item": "soup", "money": 0.3, "off": ["0.10"]},
        {"item": "nothing"},
    ]});
    let mapped = mapped(&text, &body);
    assert_eq!(all_ids(&mapped), ["A", "B"]);
    assert_eq!(mapped.records.iter().map(|one| one.amount).collect::<Vec<_>>(), [Some(1170), Some(200)]);
    assert_eq!(mapped.records[0].data, r#"{"lines":[{"item":"fish"},{"item":"soup"}]}"#);
    assert_eq!(mapped.failures.len(), 1);
    let paged =
        text.replace("request.path='/'", "request.path='/'\npagination={style='page', page_param='page'}");
    assert!(mistakes(&paged).contains("answer.group_by`: wants all rows of a record in one answer"));
    let lost = text.replace(", group_into='lines'", "");
    assert!(mistakes(&lost).contains("answer.group_into`: is missing"));
    let alone = text.replace("group_by='bill', ", "");
    assert!(mistakes(&alone).contains("answer.group_into`: names where the rows of a record go"));
}

#[test]
fn json_inside_of_a_text_is_read_where_the_manifest_says() {
    let text = with_own_id(
        "request.path='/'\nanswer.records='rows'\nmapping.json_text=['biz', 'biz.inner', 'other']\n\
         mapping.fields.external_id='biz.id'\nmapping.fields.status='biz.inner.state'",
    );
    let inner = json!({"state": "paid"}).to_string();
    let biz = json!({"id": 9_007_199_254_740_993_u64, "inner": inner}).to_string();
    let body = json!({"rows": [{"biz": biz, "other": "[broken"}, {"biz": {"id": 2}}, {"biz": "no json"}]});
    let mapped = mapped(&text, &body);
    assert_eq!(all_ids(&mapped), ["9007199254740993", "2"]);
    assert_eq!(mapped.records[0].status.as_deref(), Some("paid"));
    assert_eq!(mapped.failures.len(), 1);
    // A failure that is mapped again later is what it was.
    assert_eq!(mapped.failures[0].raw, r#"{"biz":"no json"}"#);
}

fn by_versions(more: &str) -> String {
    manifest(&format!(
        "request.path='/'\nanswer.records='data'\n\
         pagination={{style='version', version='v', version_param='since', first_version=7{more}}}"
    ))
}

#[tokio::test]
async fn a_list_may_be_read_from_change_to_change() {
    for (more, since) in [(", size=2, size_param='size'", vec!["7", "20"]), ("", vec!["7", "20", "25"])] {
        let bench = Bench::with(|_| {}, &by_versions(more)).await;
        let server = Server::start(|asked| match asked.query("since").as_deref() {
            Some("7") => Reply::json(r#"{"data": [{"id": 1, "v": 20}, {"id": 2, "v": "19"}]}"#),
            Some("20") => Reply::json(r#"{"data": [{"id": 3, "v": 25}]}"#),
            _ => Reply::json(r#"{"data": []}"#),
        })
        .await;
        let connection = bench.connect("test", &server.url(), &json!({}));
        let stream = connection.manifest().stream("list").unwrap();
        let pages = all_pages(&connection, stream).await.unwrap();
        assert_eq!(ids(&pages), ["1", "2", "3"]);
        assert_eq!((pages[0].version, &pages[0].next), (Some(20), &Some(PageToken::Version(20))));
        let asked: Vec<String> = server.asked().iter().map(|asked| asked.query("since").unwrap()).collect();
        assert_eq!(asked, since);
    }
}

#[tokio::test]
async fn a_page_of_one_version_alone_goes_in_no_circle() {
    let bench = Bench::with(|_| {}, &by_versions(", size=1")).await;
    let server = Server::start(|_| Reply::json(r#"{"data": [{"id": 1, "v": 20}]}"#)).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let stream = connection.manifest().stream("list").unwrap();
    assert_eq!(all_pages(&connection, stream).await.unwrap_err().code, "cursor_repeats");
    assert!(first_page(&connection, "list").await.is_ok());
}

#[test]
fn versions_need_a_number_and_no_window() {
    let without = by_versions("").replace("version='v', ", "");
    assert!(mistakes(&without).contains("pagination.version`: is missing"));
    let untold = by_versions("").replace("version_param='since', ", "");
    assert!(mistakes(&untold).contains("pagination.version_param`: is missing"));
    let window = format!("{}\nwindow.from_param='from'", by_versions(""));
    assert!(mistakes(&window).contains("pagination.version`: counts the changes"));
    let ascending = format!("{}\nascending=true", by_versions(""));
    assert!(mistakes(&ascending).contains("pagination.version`: counts the changes"));
}
