//! A database that goes away and comes back: `PostgreSQL` behind a gate that the tests close. `SQLite` is a file
//! in this process; for it to be slow is the worst that it does, which is among the suites for both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use zhilian_sync_jobs::inbox::Rejected;

use crate::support::{Bench, event, send, signed, status, unsigned, within};

/// What a statement holds whose answer is to be lost.
const SWALLOWED: &str = "its answer is swallowed";

/// Stands before `PostgreSQL`. Closed, it breaks every connection and lets none through. Armed, it lets the first
/// statement pass that holds [`SWALLOWED`], and keeps the answer to itself.
struct Gate {
    port: u16,
    state: watch::Sender<State>,
    armed: Arc<AtomicBool>,
    turned_away: Arc<AtomicUsize>,
}

/// Whether it is open, and how often it was closed.
#[derive(Clone, Copy)]
struct State {
    open: bool,
    closings: u32,
}

impl Gate {
    async fn before(url: &str) -> Self {
        let (_, rest) = url.split_once("://").unwrap();
        let host = rest.split_once('/').unwrap().0;
        let target = host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned();
        let target = if target.contains(':') { target } else { format!("{target}:5432") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(State { open: true, closings: 0 });
        let (armed, turned_away) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (states, arms, count) = (state.clone(), armed.clone(), turned_away.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut state = states.subscribe();
                let State { open, closings } = *state.borrow();
                if !open {
                    count.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let (target, armed) = (target.clone(), arms.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(client, &target, &armed) => {}
                        _ = state.wait_for(|state| state.closings > closings) => {}
                    }
                });
            }
        });
        Self { port, state, armed, turned_away }
    }

    fn url(&self, of: &str) -> String {
        let (scheme, rest) = of.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let user = host.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        format!("{scheme}://{user}127.0.0.1:{}/{path}", self.port)
    }

    fn close(&self) {
        self.state.send_modify(|state| *state = State { open: false, closings: state.closings + 1 });
    }

    fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    fn swallow_an_answer(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways until either side ends; a connection that has become deaf hears no answers.
async fn forward(client: TcpStream, target: &str, armed: &AtomicBool) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(target).await.unwrap().into_split();
    let deaf = AtomicBool::new(false);
    let ask = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            let holds = bytes[..count].windows(SWALLOWED.len()).any(|part| part == SWALLOWED.as_bytes());
            if holds && armed.swap(false, Ordering::SeqCst) {
                deaf.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    let answer = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            if !deaf.load(Ordering::SeqCst) && to_client.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = ask => {}
        () = answer => {}
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_outcome_is_unknown_is_made_again_and_leaves_one_row() {
    let Some(mut bench) = Bench::postgres().await else { return };
    bench.settings.ack_margin_ms = 0;
    let gate = Gate::before(&bench.store.url).await;
    let system = bench.till().await;
    let process = bench.inbox_by(&gate.url(&bench.store.url)).await;
    assert_eq!(status(&process.inbox.receive(signed(system, &event("before"))).await), Ok(202));

    gate.swallow_an_answer();
    let call = send(&process.inbox, signed(system, &event(SWALLOWED)));
    let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
    while bench.rows(system).await.len() < 2 {
        look.tick().await;
    }
    assert!(!call.is_finished(), "it is a row, and nobody has said so yet");
    gate.close();
    gate.open();
    assert_eq!(status(&call.await.unwrap()), Ok(202));
    assert_eq!(bench.rows(system).await.len(), 2);
}
