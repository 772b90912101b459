//! A manual synchronisation: one run for each stream, all in one transaction.

use serde_json::json;
use zhilian_sync_jobs::enqueue::{self, PullParameters, Wish};
use zhilian_sync_jobs::{Context, Kind};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::{RunId, audit_logs, sync_logs};

use super::SyncRequest;
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::runs::{RunAnswer, StartedAnswer};

/// Makes the runs, rings for them, and shows them.
pub(super) async fn start(
    context: &Context,
    caller: &Caller,
    system: &ExternalSystem,
    request: SyncRequest,
) -> Result<StartedAnswer, Problem> {
    let streams = streams(context, system, request.stream.map(|text| text.0))?;
    let parameters = PullParameters {
        from: request.from.map(|time| time.0),
        to: request.to.map(|time| time.0),
        anew: request.everything.is_some_and(|flag| flag.0),
    };
    if parameters.anew && parameters.is_backfill() {
        return Err(Problem::invalid_field(
            "everything",
            "is given together with a range; give one of the two",
        ));
    }
    if let (Some(from), Some(to)) = (parameters.from, parameters.to)
        && from >= to
    {
        return Err(Problem::invalid_field("to", "is not after `from`"));
    }
    let trigger = parameters.trigger();
    let mut tx = context.store.begin().await?;
    let detail = json!({ "streams": &streams, "asked": &parameters }).to_string();
    let mut enqueued = Vec::new();
    for stream in &streams {
        let wish = Wish {
            trigger,
            parameters: parameters.clone(),
            ..Wish::pull(system.id, stream, Some(caller.user_id))
        };
        enqueued.push(enqueue::enqueue(context, &mut tx, &wish).await?);
    }
    let id = system.id.to_string();
    let mut entry = caller.audit("system.sync", "system", &id);
    entry.store_id = system.store_id.as_deref();
    entry.detail = Some(&detail);
    audit_logs::insert(&mut tx, context.clock(), entry).await?;
    tx.commit().await?;
    enqueue::ring(context, Kind::Pull.lane(trigger), &enqueued).await;
    let ids: Vec<RunId> = enqueued.iter().filter_map(|one| one.run()).collect();
    let mut runs = Vec::new();
    for id in ids {
        runs.push(RunAnswer::new(&sync_logs::get(&context.store, id).await?));
    }
    Ok(StartedAnswer { runs })
}

fn streams(
    context: &Context,
    system: &ExternalSystem,
    wanted: Option<String>,
) -> Result<Vec<String>, Problem> {
    let manifest = context.vendors.catalog().resolve(&system.provider, &system.config).map_err(|errors| {
        Problem::conflict("not_set_up", format!("the settings in `config` have mistakes: {errors}"))
    })?;
    let known: Vec<String> = manifest.streams.iter().map(|stream| stream.name.clone()).collect();
    match wanted {
        _ if known.is_empty() => Err(Problem::conflict(
            "not_set_up",
            "this vendor has no streams; there is nothing to synchronise",
        )),
        Some(stream) if known.contains(&stream) => Ok(vec![stream]),
        Some(_) => {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            Err(Problem::invalid_field(
                "stream",
                format!("is not a stream of this vendor; expected one of {known}"),
            ))
        }
        None => Ok(known),
    }
}
