//! Lists that only name records: the call for each record, or for many, before it is mapped.

use serde_json::{Value, json};
use zhilian_sync_jobs::outcome::Action;
use zhilian_sync_jobs::vendor::Mapped;

use crate::server::{Asked, Reply, Server};
use crate::support::{Bench, KEY, assert_no_secret, first_page, manifest};

const LIST: &str = r#"{"rows": [{"id": 1, "state": "old"}, {"id": 2}, {"id": 3}]}"#;

/// A manifest whose list names records, and how they are told.
fn told_by(detail: &str) -> String {
    manifest(&format!(
        "request.path='/list'\nanswer.records='rows'\nmapping.fields.status=['state', 'full.state']\n\
         [streams.list.detail]\n{detail}\n"
    ))
}

/// The first page, mapped, or why it could not be read.
async fn mapped(manifest: &str, server: &Server) -> Result<Mapped, zhilian_sync_jobs::JobError> {
    let bench = Bench::with(|_| {}, manifest).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let stream = connection.manifest().stream("list").unwrap();
    let page = first_page(&connection, "list").await?;
    Ok(connection.map_page(stream, &page))
}

/// Each record's id and state.
fn states(mapped: &Mapped) -> Vec<(&str, Option<&str>)> {
    mapped.records.iter().map(|one| (one.external_id.as_str(), one.status.as_deref())).collect()
}

fn listed(asked: &Asked) -> Option<Reply> {
    (asked.target == "/list").then(|| Reply::json(LIST))
}

#[tokio::test]
async fn a_detail_is_laid_over_its_record_in_the_order_of_the_list() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| {
            let id = asked.target.trim_start_matches("/one/");
            Reply::json(json!({"data": {"state": format!("told {id}")}}).to_string())
        })
    })
    .await;
    let manifest = told_by("path='/one/{record.id}'\nrecord='data'");
    let found = mapped(&manifest, &server).await.unwrap();
    assert_eq!(states(&found), [("1", Some("told 1")), ("2", Some("told 2")), ("3", Some("told 3"))]);
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn a_detail_may_stand_in_a_member_of_its_record() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| Reply::json(r#"{"id": "theirs", "state": "full"}"#))
    })
    .await;
    let manifest = told_by("path='/one/{record.id}'\nrecord='.'\ninto='full'");
    let found = mapped(&manifest, &server).await.unwrap();
    assert_eq!(states(&found), [("1", Some("old")), ("2", Some("full")), ("3", Some("full"))]);
}

#[tokio::test]
async fn a_record_whose_detail_is_not_there_fails_alone() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| match asked.target.as_str() {
            "/one/2" => Reply::status(404, "", "{}"),
            "/one/3" => Reply::json("{}"),
            _ => Reply::json(r#"{"data": {"state": "told"}}"#),
        })
    })
    .await;
    let found = mapped(&told_by("path='/one/{record.id}'\nrecord='data'"), &server).await.unwrap();
    assert_eq!(states(&found), [("1", Some("told"))]);
    let failed: Vec<&str> = found.failures.iter().map(|one| one.external_id.as_str()).collect();
    assert_eq!(failed, ["2", "3"]);
    for failure in &found.failures {
        assert!(failure.reason.starts_with("its detail cannot be read: "), "{}", failure.reason);
        assert_no_secret(&failure.reason);
    }
    assert_eq!(found.failures[0].raw, r#"{"id":2}"#);
}

#[tokio::test]
async fn what_may_pass_fails_the_page() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| match asked.target.as_str() {
            "/one/2" => Reply::status(503, "", "{}"),
            _ => Reply::json(r#"{"data": {}}"#),
        })
    })
    .await;
    let error = mapped(&told_by("path='/one/{record.id}'\nrecord='data'"), &server).await.unwrap_err();
    assert!(matches!(error.action, Action::Retry { .. }), "{error:?}");
}

#[tokio::test]
async fn an_id_that_would_lead_elsewhere_is_not_asked_for() {
    let server = Server::start(|asked| {
        if asked.target == "/list" {
            Reply::json(r#"{"rows": [{"id": ".."}, {"id": 5}]}"#)
        } else {
            Reply::json(r#"{"data": {"state": "told"}}"#)
        }
    })
    .await;
    let found = mapped(&told_by("path='/one/{record.id}'\nrecord='data'"), &server).await.unwrap();
    assert_eq!(states(&found), [("5", Some("told"))]);
    assert!(found.failures[0].reason.contains("has no id with which its detail"), "{:?}", found.failures);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn details_that_come_in_batches_are_matched_by_their_ids() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let wanted = body["ids"].as_array().unwrap().iter().filter(|id| **id != json!(3));
            // In another order than they were asked for.
            let rows: Vec<Value> =
                wanted.rev().map(|id| json!({"no": id.to_string(), "state": format!("told {id}")})).collect();
            Reply::json(json!({"rows": rows}).to_string())
        })
    })
    .await;
    let manifest = told_by(
        "method='POST'\npath='/many'\nbody.ids='{records.id}'\nrecord='rows'\nbatch=2\nkey='id'\ndetail_key='no'",
    );
    let found = mapped(&manifest, &server).await.unwrap();
    assert_eq!(states(&found), [("1", Some("told 1")), ("2", Some("told 2"))]);
    assert!(
        found.failures[0].reason.contains("holds no detail with the record's id"),
        "{:?}",
        found.failures
    );
    let bodies: Vec<String> = server.asked().into_iter().skip(1).map(|asked| asked.body).collect();
    assert!(
        bodies.contains(&r#"{"ids":[1,2]}"#.to_owned()) && bodies.contains(&r#"{"ids":[3]}"#.to_owned()),
        "{bodies:?}"
    );
    assert!(bodies.iter().all(|body| !body.contains(KEY)));
}

#[tokio::test]
async fn each_mistake_of_a_detail_names_key_and_fix() {
    for (detail, key, says) in [
        ("path='/one'\nrecord='data'", "path", "must say which record is meant, with `{record.<path>}`"),
        ("path='/one/{record.id}'", "record", "give the path of the record in the answer"),
        ("path='/one/{record.id}?p={page.number}'\nrecord='.'", "path", "has neither page nor window"),
        ("path='/one/{record.id}'\nrecord='.'\nkey='id'", "key", "and there is none"),
        ("path='/many/{records.id}'\nrecord='.'\nbatch=2", "key", "give the path of the id in the record"),
        ("path='/one/{record.id}'\nrecord='.'\nbatch=2\nkey='id'", "path", "with `{records.<path>}`"),
        ("path='/one/{record.id}'\nrecord='.'\nintoo='x'", "intoo", "did you mean `into`?"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.toml");
        std::fs::write(&file, told_by(detail)).unwrap();
        let errors = zhilian_sync_jobs::vendor::check_file(&file, None).unwrap_err().to_string();
        let key = format!("`streams.list.detail.{key}`");
        assert!(errors.lines().any(|line| line.contains(&key) && line.contains(says)), "{detail}: {errors}");
    }
}

#[tokio::test]
async fn a_record_with_two_different_details_fails_alone() {
    let server = Server::start(|asked| {
        listed(asked).unwrap_or_else(|| {
            let told = [(1, "a"), (1, "b"), (2, "c"), (2, "c"), (3, "d")];
            let told: Vec<Value> = told.iter().map(|(id, state)| json!({"id": id, "state": state})).collect();
            Reply::json(json!({ "data": told }).to_string())
        })
    })
    .await;
    let manifest = told_by("path='/many/{records.id}'\nrecord='data'\nbatch=3\nkey='id'");
    let found = mapped(&manifest, &server).await.unwrap();
    assert_eq!(states(&found), [("2", Some("c")), ("3", Some("d"))]);
    assert_eq!(found.failures.len(), 1);
    assert!(found.failures[0].reason.contains("several details"), "{}", found.failures[0].reason);
}
