//! A system of the demo: the simulated vendor behind it, what it has been through, and the ledgers that the database
//! is compared with. Tills speak the demo's own tongue; the other vendors are fakes of real ones.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use secrecy::SecretString;
use zhilian_sync_jobs::Kind;
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_jobs::vendor::Target;
use zhilian_sync_simulator as fake;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::sync_logs::Run;
use zhilian_sync_store::{RunId, SyncStatus, SystemId, Trigger};

use super::evidence::{Evidence, Served};
use super::hooks;
use super::verdict::Told;
use crate::api::BASE;
use crate::app::App;
use crate::simulator::{Simulator, WebhookCounters};

/// A list of a fake vendor, and the table that it is read into.
#[derive(Debug, Clone, Copy)]
pub(super) struct FakeStream {
    pub(super) name: &'static str,
    pub(super) target: Target,
}

/// Who is behind a system.
pub(super) enum Vendor {
    /// A till of the demo.
    Till(Simulator),
    /// A fake of a real vendor.
    Fake { simulator: fake::Simulator, streams: &'static [FakeStream] },
}

/// What a vendor says of one of its lists.
pub(super) struct Ledger {
    /// The system, and where it has several lists, the list.
    pub(super) name: String,
    /// The table that it should stand in.
    pub(super) target: Target,
    /// Each record as it is now, by the vendor's id.
    pub(super) told: BTreeMap<String, Told>,
}

/// A system of the demo.
pub(super) struct DemoSystem {
    pub(super) id: SystemId,
    pub(super) name: String,
    pub(super) vendor: Vendor,
    pub(super) scheduled_pulls: u64,
    /// The last scheduled pull of each list that ended well.
    pub(super) last_pulls: BTreeMap<String, RunId>,
    /// Its vendor posts what happens.
    pub(super) posts_webhooks: bool,
    pub(super) pages_move: bool,
}

/// Adds a system and has its connection tested, which makes it active and starts its schedule, as a person would.
/// Gives what its webhooks are signed with, where it has some.
pub(super) async fn configure(
    app: &App,
    system: &mut ExternalSystem,
    credentials: &BTreeMap<String, SecretString>,
    posts_webhooks: bool,
) -> anyhow::Result<Option<SecretString>> {
    let store = app.store();
    external_systems::set_credentials(store, system, credentials)?;
    let secret = posts_webhooks.then(|| SecretString::from(store.clock().new_id().simple().to_string()));
    if let Some(secret) = &secret {
        let secrets = BTreeMap::from([("default".to_owned(), secret.clone())]);
        external_systems::set_webhook_secrets(store, system, &secrets)?;
    }
    let mut tx = store.begin().await?;
    external_systems::insert(&mut tx, system).await?;
    tx.commit().await?;
    let test = Wish::connection_test(system.id, None);
    enqueue::start(app.context(), &test).await.with_context(|| format!("testing `{}`", system.name))?;
    Ok(secret)
}

/// Where a system's webhooks are received.
pub(super) fn webhook_path(system: &ExternalSystem) -> String {
    format!("{BASE}/integrations/webhooks/{}/{}", system.system_type, system.id)
}

impl DemoSystem {
    /// Notes a run of this system that ended.
    pub(super) fn note(&mut self, run: &Run) {
        let is_pull = Kind::parse(&run.kind) == Some(Kind::Pull) && run.trigger == Trigger::Schedule;
        if is_pull && run.status == SyncStatus::Success {
            self.scheduled_pulls += 1;
            self.last_pulls.insert(run.sync_type.clone(), run.id);
        }
    }

    pub(super) fn evidence(&self) -> Evidence {
        Evidence {
            vendor: self.vendor.served(),
            scheduled_pulls: self.scheduled_pulls,
            pages_move: self.pages_move,
        }
    }

    /// What the database should hold of it.
    pub(super) fn ledgers(&self) -> Vec<Ledger> {
        match &self.vendor {
            Vendor::Till(till) => {
                let entries = till.ledger().into_iter();
                let told =
                    entries.map(|(id, sale)| (id, Told { kind: sale.kind.as_str(), worth: sale.total_fen }));
                let (name, target) = (self.name.clone(), Target::PosTransactions);
                vec![Ledger { name, target, told: told.collect() }]
            }
            Vendor::Fake { simulator, streams } => {
                let ledgers = streams.iter().map(|stream| {
                    let entries = simulator.ledger(stream.name).into_iter();
                    let there = entries.filter(|(_, entry)| !entry.deleted);
                    let told = there.map(|(id, entry)| (id, Told { kind: entry.kind, worth: worth(&entry) }));
                    let name = match streams {
                        [_] => self.name.clone(),
                        _ => format!("{}/{}", self.name, stream.name),
                    };
                    Ledger { name, target: stream.target, told: told.collect() }
                });
                ledgers.collect()
            }
        }
    }
}

/// What is compared of a record: what was paid, or a member's points.
fn worth(entry: &fake::Entry) -> i64 {
    entry.points.unwrap_or(entry.total)
}

impl Vendor {
    pub(super) fn served(&self) -> Served {
        match self {
            Self::Till(till) => {
                let counters = till.counters();
                Served {
                    pages: counters.pages,
                    longest_listing: counters.longest_listing,
                    too_many_requests: counters.too_many_requests,
                    server_errors: counters.server_errors,
                    duplicates: counters.duplicates,
                    shifts: counters.shifts,
                }
            }
            Self::Fake { simulator, streams } => {
                let counters = simulator.counters();
                let longest =
                    streams.iter().map(|stream| longest_listing(&simulator.pages(stream.name))).max();
                Served {
                    pages: counters.pages,
                    longest_listing: longest.unwrap_or(0),
                    too_many_requests: counters.too_many_requests,
                    server_errors: counters.server_errors,
                    duplicates: counters.duplicates,
                    shifts: counters.changes_between_pages,
                }
            }
        }
    }

    /// Nothing changes any more once this returns; the lists can still be read.
    pub(super) fn stop_changing(&self) {
        match self {
            Self::Till(till) => till.stop_selling(),
            Self::Fake { simulator, .. } => simulator.stop_changing(),
        }
    }

    /// When a record was last made or changed.
    pub(super) fn last_change(&self) -> DateTime<Utc> {
        match self {
            Self::Till(till) => till.last_change(),
            Self::Fake { simulator, .. } => simulator.last_change(),
        }
    }

    /// Whether whatever happened was posted, and taken or given up.
    pub(super) fn all_posted(&self) -> bool {
        match self {
            Self::Till(till) => till.all_posted(),
            Self::Fake { simulator, .. } => simulator.all_posted().now_or_never().is_some(),
        }
    }

    /// What was posted so far, and what the receiver said. Fakes forge nothing and keep the order.
    pub(super) fn webhook_counters(&self) -> WebhookCounters {
        match self {
            Self::Till(till) => till.webhook_counters(),
            Self::Fake { simulator, .. } => {
                let counters = simulator.webhook_counters();
                WebhookCounters {
                    accepted: counters.accepted,
                    repeated: counters.repeated,
                    unanswered: counters.unanswered + counters.refused,
                    given_up: counters.given_up,
                    ..WebhookCounters::default()
                }
            }
        }
    }

    /// What it has not posted yet, in words; empty when it is enough.
    pub(super) fn webhooks_missing(&self) -> Vec<String> {
        hooks::Comparison::missing(&self.webhook_counters(), matches!(self, Self::Till(_)))
    }

    pub(super) async fn close(self) {
        match self {
            Self::Till(till) => till.close().await,
            Self::Fake { simulator, .. } => simulator.close().await,
        }
    }
}

/// The most pages in a row of which all but the last go on, without a record of the first coming again.
fn longest_listing(pages: &[fake::PageServed]) -> u64 {
    let (mut longest, mut pages_of_this) = (0, 0);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for page in pages {
        // A page that was asked for again, or a list from its beginning.
        if page.ids.first().is_some_and(|id| seen.contains(id.as_str())) {
            (pages_of_this, seen) = (0, BTreeSet::new());
        }
        seen.extend(page.ids.iter().map(String::as_str));
        pages_of_this += 1;
        if !page.more {
            longest = longest.max(pages_of_this);
            (pages_of_this, seen) = (0, BTreeSet::new());
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_counts_from_its_first_page_to_its_last() {
        let page = |ids: &[&str], more| fake::PageServed {
            stream: "orders",
            at: DateTime::UNIX_EPOCH,
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            more,
        };
        assert_eq!(longest_listing(&[]), 0);
        let whole = [page(&["a"], true), page(&["b"], true), page(&["c"], false), page(&["a"], true)];
        assert_eq!(longest_listing(&whole), 3);
        // Read from its beginning after the second page was lost.
        let again = [page(&["a"], true), page(&["b"], true), page(&["a"], true), page(&["b"], false)];
        assert_eq!(longest_listing(&again), 2);
    }
}
