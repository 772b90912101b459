//! A database that goes away and comes back: `PostgreSQL` behind a gate that the tests close. `SQLite` is a file
//! in this process; for it to be slow is the worst that it does, which is among the suites for both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use zhilian_sync_jobs::inbox::Rejected;

use crate::support::{Bench, event, send, signed, status, unsigned, within};

/// Stands before `PostgreSQL`. Closed, it breaks every connection and lets none through.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
    turned_away: Arc<AtomicUsize>,
}

impl Gate {
    async fn before(url: &str) -> Self {
        let (_, rest) = url.split_once("://").unwrap();
        let host = rest.split_once('/').unwrap().0;
        let target = host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned();
        let target = if target.contains(':') { target } else { format!("{target}:5432") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = watch::Sender::new(true);
        let turned_away = Arc::<AtomicUsize>::default();
        let (state, count) = (open.clone(), turned_away.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut open = state.subscribe();
                if !*open.borrow() {
                    count.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let target = target.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(client, &target) => {}
                        _ = open.wait_for(|open| !*open) => {}
                    }
                });
            }
        });
        Self { port, open, turned_away }
    }

    fn url(&self, of: &str) -> String {
        let (scheme, rest) = of.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let user = host.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        format!("{scheme}://{user}127.0.0.1:{}/{path}", self.port)
    }

    fn close(&self) {
        self.open.send_replace(false);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::SeqCst)
    }
}

async fn forward(mut client: TcpStream, target: &str) {
    let mut server = TcpStream::connect(target).await.unwrap();
    // However it ends, the connection is over.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_nothing_is_promised_and_nothing_is_kept_later() {
    let Some(mut bench) = Bench::postgres().await else { return };
    (bench.settings.ack_deadline_max_ms, bench.settings.ack_margin_ms) = (700, 0);
    let gate = Gate::before(&bench.store.url).await;
    let (system, other) = (bench.till().await, bench.till().await);
    let process = bench.inbox_by(&gate.url(&bench.store.url)).await;
    assert_eq!(status(&process.inbox.receive(signed(system, &event("before"))).await), Ok(202));

    gate.close();
    let verified = (0..10).map(|id| send(&process.inbox, signed(system, &event(id))));
    let unverified = (0..10).map(|id| send(&process.inbox, unsigned(system, &event(id))));
    let unread = (0..10).map(|id| send(&process.inbox, signed(other, &event(id))));
    let calls: Vec<_> = verified.chain(unverified).chain(unread).collect();
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap(), Err(Rejected::Busy));
    }
    assert!(gate.turned_away() > 0, "the database was asked for");

    gate.open();
    let mut answer = process.inbox.receive(signed(system, &event("after"))).await;
    for _ in 0..20 {
        if status(&answer) == Ok(202) {
            break;
        }
        answer = process.inbox.receive(signed(system, &event("after"))).await;
    }
    assert_eq!(status(&answer), Ok(202), "it works again by itself");
    within("no place is lost", || process.inbox.waiting() == 0).await;
    // Whoever went away with a 503 sends it again; we do not keep it behind his back.
    let mut keys: Vec<_> = bench.rows(system).await.into_iter().map(|row| row.event_key).collect();
    keys.sort();
    assert_eq!(keys, ["after", "before"]);
    assert!(bench.rows(other).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_absence_is_waited_out() {
    let Some(mut bench) = Bench::postgres().await else { return };
    bench.settings.ack_margin_ms = 0;
    let gate = Gate::before(&bench.store.url).await;
    let system = bench.till().await;
    let process = bench.inbox_by(&gate.url(&bench.store.url)).await;
    assert_eq!(status(&process.inbox.receive(signed(system, &event("before"))).await), Ok(202));

    gate.close();
    let calls: Vec<_> = (0..20).map(|id| send(&process.inbox, signed(system, &event(id)))).collect();
    within("it was asked for in vain", || gate.turned_away() > 0).await;
    assert!(!calls.iter().any(tokio::task::JoinHandle::is_finished), "everybody waits");
    gate.open();
    for answer in join_all(calls).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    let rows = bench.rows(system).await;
    assert_eq!(rows.len(), 21);
}
