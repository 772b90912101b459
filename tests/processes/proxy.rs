//! A way to the database that can be cut: what a process sees when its database is gone.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to the database until it is cut.
pub(crate) struct Proxy {
    url: String,
    up: Arc<watch::Sender<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the database of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let parsed = url::Url::parse(url).unwrap();
        let target = (parsed.host_str().unwrap().to_owned(), parsed.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut through = parsed;
        through.set_host(Some("127.0.0.1")).unwrap();
        through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let up = Arc::new(watch::Sender::new(true));
        let switch = Arc::clone(&up);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // While it is cut, a caller is hung up on at once.
                if *switch.borrow() {
                    tokio::spawn(pass(client, target.clone(), switch.subscribe()));
                }
            }
        });
        Self { url: through.into(), up, task }
    }

    /// Where the service is to connect to.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Breaks every connection, whatever is under way, and takes no new ones.
    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, target: (String, u16), mut up: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = up.wait_for(|up| !up) => {}
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
    }
}
