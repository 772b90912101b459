//! Whether the process lives, and whether it can do its work.
//!
//! Not ready means that the database does not answer, that its schema is older than this program, or that
//! the clocks are too far apart. A queue that is away makes the service slower, not wrong: degraded, and
//! still a 200.

use std::time::Duration;

use poem::endpoint::{make, make_sync};
use poem::{Endpoint, IntoResponse as _, Response};
use poem_openapi::{Object, OpenApi};

use super::Tag;
use super::answer::{Answer, Either, Found};
use super::problem::Problem;
use crate::app::App;

/// How far this machine's clock may be from the database's.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);
/// How long the queue may take to answer before it counts as away.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// The operations of this file.
pub struct Health(pub App);

/// The process answers.
#[derive(Debug, Object)]
pub struct Liveness {
    /// Always `ok`.
    pub status: String,
}

/// What the process needs, and how it is.
#[derive(Debug, Object)]
pub struct Readiness {
    /// `ready`, `degraded` or `not_ready`.
    pub status: String,
    /// `ok`, or what is wrong.
    pub database: String,
    /// `ok`, or `away`: work is found later.
    pub queue: String,
    /// How far this machine's clock is from the database's.
    pub clock_skew_ms: u64,
}

#[OpenApi]
impl Health {
    /// Whether the process lives
    #[oai(path = "/health/live", method = "get", operation_id = "show_liveness", tag = "Tag::Health")]
    #[expect(clippy::unused_async, reason = "the framework awaits every handler")]
    async fn show_liveness(&self) -> Result<Found<Liveness>, Problem> {
        Ok(live())
    }

    /// Whether the process can do its work
    #[oai(path = "/health/ready", method = "get", operation_id = "show_readiness", tag = "Tag::Health")]
    async fn show_readiness(&self) -> Result<Either<Found<Readiness>, Answer<503, Readiness>>, Problem> {
        Ok(ready(&self.0).await)
    }
}

/// The same outside the API, where load balancers look.
pub fn live_endpoint() -> impl Endpoint<Output = Response> {
    make_sync(|_| live().into_response())
}

/// The same outside the API, where load balancers look.
pub fn ready_endpoint(app: App) -> impl Endpoint<Output = Response> {
    make(move |_| {
        let app = app.clone();
        async move { ready(&app).await.into_response() }
    })
}

fn live() -> Found<Liveness> {
    Answer(Liveness { status: "ok".to_owned() })
}

async fn ready(app: &App) -> Either<Found<Readiness>, Answer<503, Readiness>> {
    let skew = app.clock_skew();
    let database = match app.store().check().await {
        Ok(()) => None,
        // The cause may name hosts and users, which are nobody's business without a login.
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Some("does not answer, or its schema is not up to date")
        }
    };
    let queue = tokio::time::timeout(QUEUE_TIMEOUT, app.context().queue.ping()).await;
    let queue_ok = matches!(queue, Ok(Ok(())));
    let answer = |status: &str| Readiness {
        status: status.to_owned(),
        database: database.unwrap_or("ok").to_owned(),
        queue: if queue_ok { "ok" } else { "away" }.to_owned(),
        clock_skew_ms: u64::try_from(skew.as_millis()).unwrap_or(u64::MAX),
    };
    if database.is_some() || skew > CLOCK_SKEW_MAX {
        Either::Second(Answer(answer("not_ready")))
    } else if queue_ok {
        Either::First(Answer(answer("ready")))
    } else {
        Either::First(Answer(answer("degraded")))
    }
}
