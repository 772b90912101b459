//! The guide to writing a manifest, done: its blocks are put together as it says, checked, tried and pulled with,
//! against the vendor that it describes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use zhilian_sync::config::Settings;
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest, Scripted};
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::{Context, vendor::read_json};
use zhilian_sync_store::{Clock, SyncStatus, SystemStatus, SystemType, external_systems, sync_logs, testing};

const SECRET: &str = "ls-canary-7Jx+/9q";

/// The blocks of the guide in one language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let guide = std::fs::read_to_string(format!("{}/docs/vendors.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let begin = format!("\n```{language}\n");
    let blocks = guide.split(&begin).skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// A folder with everything that the guide writes.
fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("lotus.toml", &blocks("toml").concat());
    let [payload, vectors] = blocks("json").try_into().unwrap();
    std::fs::create_dir(folder.path().join("recorded")).unwrap();
    put("recorded/transactions.json", &payload);
    put("vectors.json", &vectors);
    put("secrets.toml", &format!("app_id = \"lt-demo-9918\"\napp_secret = \"{SECRET}\""));
    put("system.toml", "shop_no = \"8801\"");
    put("settings.toml", "[vendors]\nallow_networks = [\"127.0.0.1\"]");
    folder
}

/// Types a command of the guide, with more behind it.
async fn type_command(begins: &str, more: &[&str], folder: &Path) -> Output {
    let commands = blocks("sh");
    let command = commands.iter().find(|command| command.starts_with(begins)).unwrap();
    let words = command.split_whitespace().skip(1).chain(more.iter().copied());
    let mut program = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"));
    program.args(words).current_dir(folder).output().await.unwrap()
}

/// What was printed by a command that went well.
fn printed(done: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{error}");
    format!("{out}{error}")
}

/// The members of a request's form.
fn form(request: &RecordedRequest) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

/// The vendor as its documents say: two pages of one bill each.
fn lotus(request: &RecordedRequest) -> Answer {
    let form = form(request);
    let is_signed =
        form["sign"].len() == 32 && form["sign"].bytes().all(|byte| b"0123456789ABCDEF".contains(&byte));
    if request.path() != "/v1/bills/query"
        || request.method != "POST"
        || !is_signed
        || form["shop_no"] != "8801"
    {
        return Answer::json(200, &json!({"code": 40101, "msg": "who are you"}));
    }
    let mut page: Value = read_json(&blocks("json")[0]).unwrap();
    match form.get("cursor").map(String::as_str) {
        None => page["data"]["next_cursor"] = json!("c2"),
        Some("c2") => page["data"]["bills"][0]["bill_id"] = json!("L-20260319-0002"),
        Some(_) => return Answer::json(200, &json!({"code": 5, "msg": "no such page"})),
    }
    Answer::json(200, &page)
}

#[tokio::test]
async fn the_manifest_of_the_guide_has_no_mistakes() {
    let folder = written();
    let shown = printed(&type_command("zhilian-sync vendors check", &[], folder.path()).await);
    assert!(shown.contains("transactions.json: 1 transactions, 0 orders"), "{shown}");
    assert!(shown.contains("0 skipped, 0 failed") && shown.contains("1 signatures as expected"), "{shown}");
}

#[tokio::test]
async fn the_first_try_shows_a_bill_and_no_secret() {
    let (folder, vendor) = (written(), Scripted::start_with(lotus).await.unwrap());
    let more = ["--endpoint", &vendor.url(), "--config", "settings.toml"];
    let shown = printed(&type_command("zhilian-sync vendors try", &more, folder.path()).await);
    for part in ["\"total\": 58.00", "\"discount\": 2.00", "next page: cursor `c2`", "0 cannot be mapped"] {
        assert!(shown.contains(part), "`{part}` is not in {shown}");
    }
    let sign = form(&vendor.requests()[0])["sign"].clone();
    assert!(!shown.contains(SECRET) && !shown.contains(&sign), "{shown}");
}

#[tokio::test]
async fn a_pull_stores_both_pages() {
    let (folder, vendor) = (written(), Scripted::start_with(lotus).await.unwrap());
    let manifests = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("lotus.toml"), manifests.path().join("lotus.toml")).unwrap();
    let store = testing::sqlite(Clock::fake(testing::noon())).await;
    let mut settings = Settings::embedded();
    settings.vendors.allow_networks = vec!["127.0.0.1".to_owned()];
    settings.vendors.directory = manifests.path().display().to_string();
    let vendors = Vendors::new(&settings.vendors, store.store.clone()).unwrap();
    let queue = Queue::memory(&settings.queue);
    let ctx =
        Context::new(store.store.clone(), queue, vendors, settings.engine, settings.queue, settings.webhooks);
    let mut system = external_systems::blank(&store.store, "the shop", SystemType::Pos, "lotus");
    system.status = SystemStatus::Active;
    system.sync_interval = None;
    system.api_endpoint = Some(vendor.url());
    system.config.0.insert("shop_no".to_owned(), json!("8801"));
    let secrets = [("app_id", "lt-demo-9918"), ("app_secret", SECRET)];
    let secrets = secrets.map(|(name, secret)| (name.to_owned(), SecretString::from(secret))).into();
    external_systems::set_credentials(&store.store, &mut system, &secrets).unwrap();
    let mut tx = store.store.begin().await.unwrap();
    external_systems::insert(&mut tx, &system).await.unwrap();
    tx.commit().await.unwrap();
    let run =
        enqueue::start(&ctx, &Wish::pull(system.id, "transactions", None)).await.unwrap().run().unwrap();
    drain(&ctx).await;
    let run = sync_logs::get(&store.store, run).await.unwrap();
    assert_eq!(run.status, SyncStatus::Success, "{run:?}");
    assert_eq!(testing::texts(&store, "pos_transactions", "pos_transaction_id").await.len(), 2);
    assert_eq!(vendor.requests().len(), 2);
}
