//! Posts what changes, signed as the vendor signs, to whoever asked for it.
//!
//! As real vendors do, it repeats what was not answered with 2xx, and now and then what was.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::simulator::Shared;
use crate::world::{Change, Happening, Record};

/// How long the receiver may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often an event is posted that nobody takes.
const TRIES: u32 = 5;
/// How long it waits before it posts such an event again.
const PAUSE: Duration = Duration::from_millis(250);

/// Where webhooks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The receiver, an `http` address, exactly as it is registered with the vendor.
    pub url: Url,
    /// What events are signed with.
    pub secret: String,
}

/// An event to be told.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number, from 1.
    pub number: u64,
    /// When it is posted.
    pub at: DateTime<Utc>,
    /// The list that its record is in.
    pub stream: &'static str,
    /// What became of the record.
    pub change: Change,
    /// The record as it was then.
    pub record: Record,
}

/// A request to the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Headers besides `Host` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// What stands in the query behind the registered one, without a separator; most vendors have nothing
    /// there.
    pub query: String,
    /// The body.
    pub body: String,
}

/// A delivery that was not answered with 2xx in time.
enum Undelivered {
    Refused,
    Unanswered,
}

/// Posts what happens, in order, until `stop`.
pub(crate) async fn post_all_the_time(shared: Arc<Shared>, target: WebhookTarget, stop: CancellationToken) {
    let mut number = 0;
    loop {
        let next = {
            let mut state = shared.state();
            let next = state.world.take_happened();
            state.posting = u64::from(next.is_some());
            next
        };
        let Some(happening) = next else {
            shared.posted.notify_waiters();
            if stop.run_until_cancelled(shared.happened.notified()).await.is_none() {
                return;
            }
            continue;
        };
        number += 1;
        let at = shared.now();
        let Happening { stream, change, record } = happening;
        let event = Event { number, at, stream, change, record };
        if let Some(delivery) = shared.vendor.webhook(&event, &target) {
            shared.state().webhooks.events += 1;
            if stop.run_until_cancelled(deliver(&shared, &target, &delivery)).await.is_none() {
                return;
            }
        }
    }
}

/// Posts an event until it is taken, as often as a patient vendor does.
async fn deliver(shared: &Shared, target: &WebhookTarget, delivery: &Delivery) {
    for _ in 0..TRIES {
        match post(target, delivery).await {
            Ok(()) => {
                let (events, twice) = {
                    let mut state = shared.state();
                    state.webhooks.accepted += 1;
                    (state.webhooks.events, state.faults.webhook_twice)
                };
                if twice.is_some_and(|every| every.happens(events)) && post(target, delivery).await.is_ok() {
                    shared.state().webhooks.repeated += 1;
                }
                return;
            }
            Err(Undelivered::Refused) => shared.state().webhooks.refused += 1,
            Err(Undelivered::Unanswered) => shared.state().webhooks.unanswered += 1,
        }
        pause().await;
    }
    shared.state().webhooks.given_up += 1;
}

async fn post(target: &WebhookTarget, delivery: &Delivery) -> Result<(), Undelivered> {
    match tokio::time::timeout(ANSWER_MAX, send(target, delivery)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(_)) => Err(Undelivered::Refused),
        _ => Err(Undelivered::Unanswered),
    }
}

async fn send(
    target: &WebhookTarget,
    delivery: &Delivery,
) -> Result<http::StatusCode, Box<dyn Error + Send + Sync>> {
    let url = &target.url;
    let (host, port) =
        url.host_str().zip(url.port_or_known_default()).ok_or("the receiver's address has no host")?;
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(path_and_query(url, &delivery.query))
        .header(http::header::HOST, format!("{host}:{port}"));
    for (name, value) in &delivery.headers {
        request = request.header(*name, value);
    }
    let status = sender.send_request(request.body(delivery.body.clone())?).await?.status();
    connection.abort();
    Ok(status)
}

fn path_and_query(url: &Url, added: &str) -> String {
    let queries = [url.query().unwrap_or_default(), added];
    let query: Vec<&str> = queries.into_iter().filter(|query| !query.is_empty()).collect();
    if query.is_empty() { url.path().to_owned() } else { format!("{}?{}", url.path(), query.join("&")) }
}

#[expect(clippy::disallowed_methods, reason = "a vendor waits before it posts an event again")]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}
