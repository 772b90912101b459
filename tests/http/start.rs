//! A real start: the database is made, its key and the first admin with it, and a second process is kept
//! out.

use std::path::Path;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zhilian_sync::app::store::{self, Sharing};
use zhilian_sync::app::{App, ProcessRole};
use zhilian_sync::auth;
use zhilian_sync::config::Settings;
use zhilian_sync_store::{Clock, Store, passwords, testing, users};

fn settings(folder: &Path) -> Settings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut settings = Settings::embedded();
    let url = format!("sqlite:{}", folder.join("data/zhilian.db").display());
    settings.database.url = url.as_str().into();
    settings.auth.admin_password = "correct horse".into();
    settings
}

async fn open(settings: Settings) -> anyhow::Result<App> {
    App::open(settings, ProcessRole::All, Clock::system()).await
}

#[tokio::test]
async fn the_first_start_makes_everything_and_the_second_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let app = open(settings(folder.path())).await.unwrap();
    let admin = users::find_by_username(app.store(), "admin").await.unwrap().unwrap();
    assert!(passwords::verify(&SecretString::from("correct horse"), &admin.password_hash));
    assert!(folder.path().join("data/zhilian.db.key").exists());

    let second = open(settings(folder.path())).await.err().unwrap().to_string();
    assert!(second.contains("another process uses the database"), "{second}");

    app.store().close().await;
    drop(app);
    let again = open(settings(folder.path())).await.unwrap();
    assert_eq!(users::count(again.store()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_short_command_works_beside_the_process_that_serves() {
    let folder = tempfile::tempdir().unwrap();
    let app = open(settings(folder.path())).await.unwrap();
    let beside = store::open(&settings(folder.path()), Clock::system(), Sharing::Beside).await.unwrap();
    assert_eq!(users::count(&beside.store).await.unwrap(), 1);
    app.store().close().await;
    drop(app);
    // Where nobody serves it may bring the schema up to date, and keeps others from serving meanwhile.
    drop(beside);
    let alone = store::open(&settings(folder.path()), Clock::system(), Sharing::Beside).await.unwrap();
    assert!(open(settings(folder.path())).await.is_err());
    drop(alone);
}

#[tokio::test]
async fn another_key_is_refused_before_anything_is_sealed_with_it() {
    let folder = tempfile::tempdir().unwrap();
    open(settings(folder.path())).await.unwrap().store().close().await;
    let mut wrong = settings(folder.path());
    wrong.vault.master_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    let refused = open(wrong).await.err().unwrap().to_string();
    assert!(refused.contains("the master key does not open this database"), "{refused}");

    std::fs::remove_file(folder.path().join("data/zhilian.db.key")).unwrap();
    let refused = open(settings(folder.path())).await.err().unwrap().to_string();
    assert!(refused.contains("put it back"), "{refused}");
}

#[tokio::test]
async fn of_many_processes_one_makes_the_first_admin() {
    for store in testing::every(|| Clock::fake(testing::noon())).await {
        let settings = Settings::embedded().auth;
        let starts = (0..8).map(|_| {
            let (store, settings): (Store, _) = ((*store).clone(), settings.clone());
            tokio::spawn(async move { auth::ensure_first_admin(&store, &settings).await.unwrap() })
        });
        let mut shown = 0;
        for start in starts.collect::<Vec<_>>() {
            shown += usize::from(start.await.unwrap().is_some());
        }
        assert_eq!(shown, 1, "the generated password is shown by the process that set it");
        assert_eq!(users::count(&store).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_served_process_answers_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.engine.stop_secs = 5;
    let app = open(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/health/ready", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { app.run(ProcessRole::All, Some(listener), stop).await }
    });
    let answered = client().get(&url).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    assert!(answered.headers().contains_key("x-request-id"));
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(client().get(&url).send().await.is_err());
}

#[tokio::test]
async fn a_process_stops_while_clients_listen() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    // Shorter than the stream: what is sent after the handler is not its time any more.
    settings.server.request_timeout_secs = 1;
    settings.server.drain_secs = 60;
    settings.events.heartbeat_ms = 600;
    let app = open(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { app.run(ProcessRole::All, Some(listener), stop).await }
    });
    let login = client().post(format!("{base}/auth/login")).header("content-type", "application/json");
    let login = login.body(serde_json::json!({"username": "admin", "password": "correct horse"}).to_string());
    let signed_in: serde_json::Value =
        serde_json::from_str(&login.send().await.unwrap().text().await.unwrap()).unwrap();
    let token = signed_in["access_token"].as_str().unwrap();
    let mut stream = client().get(format!("{base}/events")).bearer_auth(token).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let mut heartbeats = 0;
    while heartbeats < 3 {
        let piece = stream.chunk().await.unwrap().expect("the stream outlives the limit of a request");
        heartbeats += usize::from(&piece[..] == b":\n\n");
    }
    stop.cancel();
    while stream.chunk().await.unwrap().is_some() {}
    let stopping = tokio::time::timeout(std::time::Duration::from_secs(20), running);
    stopping.await.expect("nobody waits for the end of the drain").unwrap().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the test's own client calls only the service under test")]
fn client() -> reqwest::Client {
    reqwest::Client::new()
}
