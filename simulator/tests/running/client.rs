//! A plain client and a plain receiver for these tests: what was sent and what came back, unchanged.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use hyper::body::Body as _;
use hyper_util::rt::TokioIo;
use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::{IntoResponse as _, Server};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use zhilian_sync_simulator::{Settings, Simulator};

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The ids in a list of the body.
    pub(crate) fn ids(&self, list: &str, id: &str) -> Vec<String> {
        let listed = self.body[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        listed.iter().map(|record| text(&record[id])).collect()
    }
}

/// A request to a simulated vendor; `None` when its answer breaks off.
pub(crate) async fn ask(
    address: SocketAddr,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Option<Answered> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(target).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let response = sender.send_request(request.body(body).unwrap()).await.ok()?;
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend_from_slice(frame.ok()?.data_ref()?);
    }
    connection.abort();
    let headers = parts.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Some(Answered { status: parts.status.as_u16(), headers, body })
}

/// A clock that is moved by hand.
#[derive(Clone)]
pub(crate) struct Hand(Arc<Mutex<DateTime<Utc>>>);

impl Hand {
    pub(crate) fn noon() -> Self {
        Self(Arc::new(Mutex::new(DateTime::from_timestamp(1_767_240_000, 0).unwrap())))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

/// A vendor whose clock is moved by hand.
pub(crate) async fn start(vendor: &str, hand: &Hand, change: impl FnOnce(&mut Settings)) -> Simulator {
    let clock = hand.clone();
    let mut settings = Settings { now: Arc::new(move || clock.now()), history: 30, ..Settings::default() };
    change(&mut settings);
    Simulator::start(vendor, settings).await.unwrap()
}

/// A posted event as it came.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Posted {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str())
    }
}

/// A receiver that takes everything but the first delivery, and writes it down.
pub(crate) async fn receiver() -> (SocketAddr, Arc<Mutex<Vec<Posted>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken: Arc<Mutex<Vec<Posted>>> = Arc::default();
    let kept = Arc::clone(&taken);
    let endpoint = poem::endpoint::make(move |request: poem::Request| {
        let kept = Arc::clone(&kept);
        async move {
            let (parts, body) = request.into_parts();
            let headers = parts.headers.iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            let posted = Posted {
                target: parts.uri.to_string(),
                headers: headers.collect(),
                body: body.into_string().await.unwrap(),
            };
            let mut kept = kept.lock().unwrap();
            kept.push(posted);
            if kept.len() == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }.into_response()
        }
    });
    let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap());
    tokio::spawn(server.run(endpoint));
    (address, taken)
}
