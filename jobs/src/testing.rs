//! Runs everything that is due in-line, so that tests neither wait nor sleep. Only built with the
//! feature `testing`.

use tokio_util::sync::CancellationToken;
use zhilian_sync_store::{Lane, RunId, sync_logs};

use crate::context::Context;
use crate::scheduler::Scheduler;
use crate::{inbox, worker};

/// More rounds than any test needs: a run that never ends fails its test here.
const ROUNDS_MAX: usize = 1_000;

/// One round of the scheduler, then every due run and every due webhook event handled as a worker would,
/// until nothing is due.
/// Returns the runs in the order they were handled.
pub async fn drain(ctx: &Context) -> Vec<RunId> {
    let stop = CancellationToken::new();
    let mut scheduler = Scheduler::default();
    let mut handled = Vec::new();
    for _ in 0..ROUNDS_MAX {
        scheduler.round(ctx).await;
        let due = due(ctx).await;
        if inbox::apply::work(ctx, &stop).await == 0 && due.is_empty() {
            return handled;
        }
        for id in due {
            worker::handle(ctx, &stop, id).await;
            handled.push(id);
        }
    }
    panic!("runs were still due after {ROUNDS_MAX} rounds");
}

/// Everything that a worker could claim now, whether it was rung or not.
pub async fn due(ctx: &Context) -> Vec<RunId> {
    let now = ctx.clock().now();
    let ever = now + chrono::TimeDelta::days(365);
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let due = sync_logs::due_to_ring(&ctx.store, *lane, now, ever, 1_000).await;
        all.extend(due.expect("the database answers").into_iter().map(|ring| ring.id));
    }
    all
}
