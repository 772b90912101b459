//! Log lines: for people or one JSON object each, on stderr, with the request and the run they
//! belong to.
//!
//! Started right after the settings are read. Secrets are kept out where values are logged; what is
//! kept out here is what dependencies print of the wire when they are asked for everything.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogFormat, LogSettings};

/// Targets whose `trace` lines are never written, whatever the filter says.
///
/// | target | because at `trace` it prints |
/// |---|---|
/// | `reqwest::connect` | the bytes of requests and answers, credentials included, on verbose connections |
/// | `rustls` | handshakes with their tickets, from which a session can be resumed |
/// | `sqlx_postgres::connection::resolve` | rows of the catalog, thousands of lines at start |
const NEVER_TRACED: &[&str] = &["reqwest::connect", "rustls", "sqlx_postgres::connection::resolve"];

/// Starts logging to stderr for the rest of the process. A second call changes nothing.
pub fn init(settings: &LogSettings) {
    let ansi = settings.format == LogFormat::Human && std::io::stderr().is_terminal();
    let subscriber = Registry::default().with(layer(settings, std::io::stderr, ansi));
    if subscriber.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            let message = panic.payload_as_str().unwrap_or("not a text");
            tracing::error!(panic.location = location, panic.message = message, "panicked");
        }));
    }
}

/// The lines of these settings on any writer, for the process and for tests that read them.
pub fn layer<W>(settings: &LogSettings, writer: W, ansi: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Filters of the whole, not of one layer: those keep their verdict in a thread's memory between two
    // calls, and a dependency that only asks whether it may log leaves a wrong one there.
    let filter = EnvFilter::new(&settings.filter).and_then(filter_fn(is_allowed));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    match settings.format {
        LogFormat::Human => filter.and_then(lines).boxed(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(true);
            filter.and_then(lines).boxed()
        }
    }
}

fn is_allowed(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE
        || !NEVER_TRACED.iter().any(|target| {
            metadata
                .target()
                .strip_prefix(target)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, filter: &str, write: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let settings = LogSettings { format, filter: filter.to_owned() };
        let subscriber = Registry::default().with(layer(&settings, move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, write);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn asking_whether_to_log_takes_no_line_away() {
        let text = written(LogFormat::Human, "info", || {
            for _ in 0..3 {
                let _asked =
                    tracing::enabled!(tracing::Level::DEBUG) || tracing::enabled!(tracing::Level::INFO);
                let _run = tracing::info_span!("run", run.id = "n-2").entered();
                let _asked = tracing::enabled!(target: "sqlx::query", tracing::Level::DEBUG);
                tracing::info!("page stored");
            }
        });
        assert_eq!(text.matches("page stored").count(), 3, "{text}");
        assert_eq!(text.matches("n-2").count(), 3, "{text}");
    }

    #[test]
    fn a_line_names_the_request_and_the_run_it_belongs_to() {
        let text = written(LogFormat::Json, "info", || {
            let _request = tracing::info_span!("request", request.id = "r-1").entered();
            let _run = tracing::info_span!("run", run.id = "n-2").entered();
            tracing::info!(records = 3, "page stored");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "page stored");
        assert_eq!(line["spans"][0]["request.id"], "r-1");
        assert_eq!(line["spans"][1]["run.id"], "n-2");
    }

    #[test]
    fn the_wire_is_not_traced_even_when_everything_is_asked_for() {
        let text = written(LogFormat::Human, "trace,reqwest::connect::verbose=trace", || {
            tracing::trace!(target: "reqwest::connect::verbose", "authorization: Bearer hunter2");
            tracing::trace!(target: "rustls", "ticket hunter2");
            tracing::trace!(target: "rustls_other", "kept");
            tracing::debug!(target: "rustls::client", "also kept");
        });
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
