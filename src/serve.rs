//! The accept loop: takes connections, hands requests to the API, and ends without cutting anyone off.
//!
//! Our own instead of `poem::Server`, which has no header time-out (half a header holds a connection
//! for ever), no cap on connections, leaves Nagle on, and spins when it is out of descriptors.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, EndpointExt, IntoEndpoint, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a client may take to send its headers, where nothing else is said.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The buffer of a connection, which bounds the size of HTTP/1 headers.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The size of HTTP/2 headers, unpacked.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// What a connection begins with that speaks HTTP/2 without having asked (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait when accepting fails, which mostly means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections, and how long their end may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections at a time; more wait in the listen queue.
    pub connections: usize,
    /// How long open requests may take after `stop`.
    pub drain: Duration,
    /// How long a client may take to send its headers; half a header holds a connection no longer.
    pub header_read: Duration,
}

/// Serves `endpoint` on `listener` until `stop`, then lets open requests finish.
pub async fn serve<E>(
    listener: TcpListener,
    endpoint: E,
    limits: Limits,
    stop: CancellationToken,
) -> std::io::Result<()>
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    let endpoint = Arc::new(endpoint.into_endpoint().map_to_response());
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let local = LocalAddr(listener.local_addr()?.into());
    let builder = builder(limits.header_read);
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = slots.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    pause().await;
                    continue;
                }
            }
        };
        let remote = RemoteAddr(peer.into());
        let (builder, endpoint, local) = (builder.clone(), endpoint.clone(), local.clone());
        let (watcher, stopping, within) = (graceful.watcher(), stop.clone(), limits.header_read);
        tokio::spawn(async move {
            let speaks = stopping.run_until_cancelled(has_begun(&stream, within)).await;
            if speaks == Some(true) {
                let connection = connect(&builder, stream, endpoint, local, remote);
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "connection ended");
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(drain_secs = limits.drain.as_secs(), "requests are still open; ending without them");
    }
    Ok(())
}

/// Cancelled by SIGTERM or SIGINT; a second signal ends the process at once.
pub fn stop_on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut next =
            async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        let name = next().await;
        tracing::info!(signal = name, "stopping; the same signal again ends at once");
        token.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(stop)
}

type Connection = auto::Builder<TokioExecutor>;

fn builder(header_read: Duration) -> Connection {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read)
        .max_buf_size(READ_BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(Some(20))
        .max_concurrent_streams(128)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Whether a client has said enough in time to be told by what it speaks. Telling the versions of HTTP apart has
/// no time-out of its own, so a client that says nothing would hold its place for ever.
async fn has_begun(stream: &TcpStream, within: Duration) -> bool {
    let mut first = [0; HTTP2_PREFACE.len()];
    let telling = async {
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return false,
                Ok(said) if said < first.len() && HTTP2_PREFACE.starts_with(&first[..said]) => pause().await,
                Ok(_) => return true,
            }
        }
    };
    tokio::time::timeout(within, telling).await.unwrap_or(false)
}

fn connect<E: Endpoint<Output = Response> + 'static>(
    builder: &Connection,
    stream: TcpStream,
    endpoint: Arc<E>,
    local: LocalAddr,
    remote: RemoteAddr,
) -> impl hyper_util::server::graceful::GracefulConnection<Error: std::fmt::Display> + Send + 'static {
    // A client that is gone already shows itself at the first read.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (endpoint, local, remote) = (endpoint.clone(), local.clone(), remote.clone());
        async move {
            let request = (request, local, remote, http::uri::Scheme::HTTP).into();
            let response: Response = endpoint.get_response(request).await;
            Ok::<http::Response<_>, Infallible>(response.into())
        }
    });
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "what is looked at again and again must be slowed down")]
async fn pause() {
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Short, so that the test of it is.
    const HEADERS: Duration = Duration::from_millis(300);

    struct Served {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    async fn serve_here<E>(endpoint: E, connections: usize) -> Served
    where
        E: IntoEndpoint + Send + 'static,
        E::Endpoint: 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = Limits { connections, drain: Duration::from_secs(5), header_read: HEADERS };
        let task = tokio::spawn(serve(listener, endpoint, limits, stop.clone()));
        Served { address, stop, task }
    }

    async fn ask(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_open_request_is_finished_after_stop() {
        let entered = Arc::new(tokio::sync::Notify::new());
        let leave = Arc::new(tokio::sync::Notify::new());
        let (inside, release) = (entered.clone(), leave.clone());
        let endpoint = poem::endpoint::make(move |_| {
            let (inside, release) = (inside.clone(), release.clone());
            async move {
                inside.notify_one();
                release.notified().await;
                "done"
            }
        });
        let served = serve_here(endpoint, 10).await;
        let asking = tokio::spawn(ask(served.address));
        entered.notified().await;
        served.stop.cancel();
        leave.notify_one();
        assert!(asking.await.unwrap().ends_with("done"));
        served.task.await.unwrap().unwrap();
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn half_a_header_does_not_hold_a_connection() {
        let served = serve_here(poem::endpoint::make_sync(|_| "done"), 1).await;
        let started = Instant::now();
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut answer = Vec::new();
        // Either a 408 or a plain close; what counts is that the only slot is free again.
        let _ = slow.read_to_end(&mut answer).await;
        assert!(started.elapsed() >= HEADERS);
        assert!(ask(served.address).await.ends_with("done"));
    }

    #[tokio::test]
    async fn silence_does_not_hold_a_connection() {
        for said in [&b""[..], b"P", &HTTP2_PREFACE[..23]] {
            let served = serve_here(poem::endpoint::make_sync(|_| "done"), 1).await;
            let mut silent = TcpStream::connect(served.address).await.unwrap();
            silent.write_all(said).await.unwrap();
            let mut answer = Vec::new();
            let _ = silent.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
            assert!(ask(served.address).await.ends_with("done"), "the only slot is free again");
        }
    }

    #[tokio::test]
    async fn connections_above_the_limit_wait_for_a_slot() {
        let served = serve_here(poem::endpoint::make_sync(|_| "done"), 1).await;
        let held = TcpStream::connect(served.address).await.unwrap();
        let waiting = tokio::spawn(ask(served.address));
        let started = Instant::now();
        drop(held);
        assert!(waiting.await.unwrap().ends_with("done"));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
