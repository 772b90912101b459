//! A vendor for tests that says exactly what it is told to, byte by byte.
//!
//! Answers are queued or made by a function of the request, and every request is written down. It
//! speaks HTTP/1.1 on a plain socket, because what matters here (half a body, an endless one, a
//! dropped connection) is what a server library is there to prevent.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The largest request head or body that is read.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// `GET`, `POST`, ….
    pub method: String,
    /// Path and query, as on the request line.
    pub target: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl RecordedRequest {
    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first header of this name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first query parameter of this name, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What to answer, and how badly.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    delay: Duration,
}

#[derive(Debug, Clone)]
enum Body {
    /// All of it, with its length.
    Whole(Bytes),
    /// The length of all of it, but only so much is sent before the connection closes.
    Cut { body: Bytes, sent: usize },
    /// The chunk again and again, until the client hangs up or the vendor closes.
    Endless(Bytes),
    /// No answer at all: the connection closes.
    Dropped,
}

impl Answer {
    /// A status with JSON.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::bytes(status, "application/json", body.to_string())
    }

    /// A status with any body, which need not be what its type says.
    #[must_use]
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".into(), content_type.into())];
        Self { status, headers, body: Body::Whole(body.into()), delay: Duration::ZERO }
    }

    /// A status without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Bytes::new()), delay: Duration::ZERO }
    }

    /// The connection closes without a word.
    #[must_use]
    pub fn dropped() -> Self {
        Self { body: Body::Dropped, ..Self::status(0) }
    }

    /// An answer whose body never ends, in chunks of this.
    #[must_use]
    pub fn endless(status: u16, content_type: &str, chunk: impl Into<Bytes>) -> Self {
        Self { body: Body::Endless(chunk.into()), ..Self::bytes(status, content_type, Bytes::new()) }
    }

    /// Closes the connection after so many bytes of the body, though more were announced.
    #[must_use]
    pub fn cut_after(mut self, sent: usize) -> Self {
        if let Body::Whole(body) = self.body {
            self.body = Body::Cut { body, sent };
        }
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Waits so long before the first byte.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = dyn Fn(&RecordedRequest) -> Answer + Send + Sync;

/// A running scripted vendor. Dropping it ends it.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    queued: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<RecordedRequest>>,
    body_bytes: AtomicU64,
    script: Box<Script>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("body_bytes", &self.body_bytes).finish_non_exhaustive()
    }
}

impl Scripted {
    /// Answers what was queued with [`Scripted::push`], and 599 once that is used up.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(|request| {
            Answer::bytes(599, "text/plain", format!("no answer is queued for {}", request.target))
        })
        .await
    }

    /// Answers what was queued, and what the script says once that is used up.
    pub async fn start_with(
        script: impl Fn(&RecordedRequest) -> Answer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            queued: Mutex::default(),
            requests: Mutex::default(),
            body_bytes: AtomicU64::new(0),
            script: Box::new(script),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, Arc::clone(&shared), stop.clone(), tasks.clone()));
        Ok(Self { address, shared, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint to configure, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Queues the next answer.
    pub fn push(&self, answer: Answer) {
        self.shared.queued.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many queued answers nobody has asked for yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queued.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many bytes of bodies the clients took.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::Relaxed)
    }

    /// Cuts every connection, then returns.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            // A client that hangs up is part of the play.
            tokio::select! {
                () = stop.cancelled() => {}
                _ = converse(stream, &shared) => {}
            }
        });
    }
}

/// One request, one answer, and the connection closes.
async fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else {
        return Ok(());
    };
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let queued = shared.queued.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let answer = queued.unwrap_or_else(|| (shared.script)(&request));
    if !answer.delay.is_zero() {
        wait(answer.delay).await;
    }
    write_answer(&mut stream, &answer, &shared.body_bytes).await?;
    stream.shutdown().await
}

#[expect(clippy::disallowed_methods, reason = "a slow vendor is what a test asked for")]
async fn wait(delay: Duration) {
    tokio::time::sleep(delay).await;
}

/// Reads one request; `None` when it ends early or is not HTTP.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<RecordedRequest>> {
    let mut buffer = BytesMut::new();
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = buffer.split_to(head_end + 4);
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (first.next(), first.next()) else {
        return Ok(None);
    };
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0_usize);
    while buffer.len() < length.min(REQUEST_BYTES_MAX) {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.split_to(length.min(buffer.len())).freeze();
    Ok(Some(RecordedRequest { method: method.to_owned(), target: target.to_owned(), headers, body }))
}

async fn write_answer(
    stream: &mut TcpStream,
    answer: &Answer,
    body_bytes: &AtomicU64,
) -> std::io::Result<()> {
    let (length, sent) = match &answer.body {
        Body::Dropped => return Ok(()),
        Body::Endless(chunk) => return write_endless(stream, answer, chunk, body_bytes).await,
        Body::Whole(body) => (body.len(), body.as_ref()),
        Body::Cut { body, sent } => (body.len(), &body[..(*sent).min(body.len())]),
    };
    stream.write_all(head(answer, &format!("content-length: {length}\r\n")).as_bytes()).await?;
    stream.write_all(sent).await?;
    body_bytes.fetch_add(sent.len() as u64, Ordering::Relaxed);
    stream.flush().await
}

async fn write_endless(
    stream: &mut TcpStream,
    answer: &Answer,
    chunk: &Bytes,
    body_bytes: &AtomicU64,
) -> std::io::Result<()> {
    stream.write_all(head(answer, "transfer-encoding: chunked\r\n").as_bytes()).await?;
    let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    loop {
        stream.write_all(&framed).await?;
        body_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

fn head(answer: &Answer, framing: &str) -> String {
    let mut head = format!("HTTP/1.1 {} scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.extend([framing, "connection: close\r\n\r\n"]);
    head
}
