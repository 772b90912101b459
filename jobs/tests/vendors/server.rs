//! A vendor on loopback, by hand, because it must be able to misbehave in ways that no HTTP library
//! lets it: half a body, an endless one, no answer at all.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The first line's path and query.
    pub(crate) target: String,
    /// All header lines, as they came.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Asked {
    /// The value of a query parameter.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(&format!("http://x{}", self.target)).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// Status, header lines, body; the length is added.
    Whole(u16, &'static str, Vec<u8>),
    /// A head that promises so many bytes, and fewer bytes.
    Cut(usize, Vec<u8>),
    /// Bytes without end.
    Endless,
    /// Nothing, for ever.
    Silence,
}

impl Reply {
    pub(crate) fn json(text: impl Into<String>) -> Self {
        Self::Whole(200, "Content-Type: application/json\r\n", text.into().into_bytes())
    }

    pub(crate) fn status(status: u16, headers: &'static str, body: &str) -> Self {
        Self::Whole(status, headers, body.as_bytes().to_vec())
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A vendor that answers as a test says.
pub(crate) struct Server {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answer>) = (Arc::clone(&asked), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&seen)));
            }
        });
        Self { port, asked, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request per connection.
async fn serve(mut stream: TcpStream, answer: Arc<Answer>, seen: Arc<Mutex<Vec<Asked>>>) {
    let Some(asked) = read(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(asked.clone());
    let _ = match answer(&asked) {
        Reply::Whole(status, headers, body) => {
            let head = format!(
                "HTTP/1.1 {status} x\r\n{headers}Date: Thu, 01 Jan 2026 04:00:00 GMT\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            stream.write_all(&body).await
        }
        Reply::Cut(promised, body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            stream.write_all(&body).await
        }
        Reply::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[").await;
            let chunk = vec![b' '; 64 * 1024];
            loop {
                if let Err(gone) = stream.write_all(&chunk).await {
                    break Err(gone);
                }
            }
        }
        Reply::Silence => std::future::pending().await,
    };
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok()?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                })
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
                let target = first.split(' ').nth(1)?.to_owned();
                return Some(Asked { target, headers: headers.to_owned(), body: body.to_owned() });
            }
        }
        if count == 0 {
            return None;
        }
    }
}
