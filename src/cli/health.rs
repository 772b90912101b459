//! `health`: asks the service of this machine whether it is ready, for health checks of containers
//! that hold no other program to ask with.

#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::Settings;

/// How long the service may take; less than what container engines wait by default.
const PATIENCE: Duration = Duration::from_secs(4);
/// An answer is a few hundred bytes; more is not ours.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Success when the service answers that it is ready; a degraded one is.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let address = reachable(settings.server.address);
    let answer = tokio::time::timeout(PATIENCE, ask(address)).await;
    let answer = answer.with_context(|| format!("`{address}` did not answer within {PATIENCE:?}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    println!("{status} {}", body.trim());
    Ok(if status == "200" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where a service that listens on `address` is reached from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The whole answer as text. HTTP/1.0, so that it ends with the connection and is never in pieces.
async fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.with_context(|| format!("no service answers at `{address}`"))?;
    let request = format!("GET /health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.") {
        bail!("what listens at `{address}` does not speak HTTP");
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answer_once(answer: &'static str) -> Settings {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings::embedded();
        settings.server.address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /health/ready HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        settings
    }

    #[tokio::test]
    async fn ready_is_success_and_everything_else_is_not() {
        let settings = answer_once("HTTP/1.0 200 OK\r\n\r\n{\"status\":\"degraded\"}").await;
        assert_eq!(run(&settings).await.unwrap(), ExitCode::SUCCESS);
        let settings = answer_once("HTTP/1.0 503 Service Unavailable\r\n\r\n{}").await;
        assert_eq!(run(&settings).await.unwrap(), ExitCode::FAILURE);
        let settings = answer_once("SSH-2.0-x\r\n").await;
        assert!(run(&settings).await.unwrap_err().to_string().contains("does not speak HTTP"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings::embedded();
        settings.server.address = listener.local_addr().unwrap();
        drop(listener);
        let error = run(&settings).await.unwrap_err().to_string();
        assert!(error.contains(&settings.server.address.to_string()), "{error}");
    }

    #[test]
    fn a_service_on_all_addresses_is_reached_on_loopback() {
        let on = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(on("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(on("[::]:8000"), "[::1]:8000");
        assert_eq!(on("10.1.2.3:80"), "10.1.2.3:80");
    }
}
