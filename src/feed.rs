//! The feed of live clients: one poller for each process, shared by all who listen to it.
//!
//! The poller gives committed events their positions, reads on from the last one, and tells every listener.
//! A listener begins in the database, at the position it names, and goes over to what it is told when it has
//! come to the present; positions have no gaps, so it sees when it has missed something, and reads that in
//! the database again. Nothing is polled while nobody listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::events::{self, Event};
use zhilian_sync_store::{Store, StoreError};

use crate::config::EventSettings;

/// Batches that wait for a slow listener; one that is slower reads in the database what it has missed.
const BATCHES_WAITING_MAX: usize = 64;
/// Events that are read at a time.
const READ_MAX: i64 = 500;

/// Events in the order of their positions, without a gap.
type Batch = Arc<[Event]>;

/// The feed of a process. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Parts>);

struct Parts {
    store: Store,
    sender: broadcast::Sender<Batch>,
    places: Arc<Semaphore>,
    poll_every: Duration,
    /// Whether a poller is at work.
    polling: Mutex<bool>,
    stop: CancellationToken,
}

/// One who listens.
pub struct Listener {
    feed: Feed,
    told: broadcast::Receiver<Batch>,
    waiting: VecDeque<Event>,
    /// Everything up to here was heard.
    position: i64,
    /// Whether the database may hold more than was heard and is told.
    behind: bool,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// A feed that nobody listens to yet.
    #[must_use]
    pub fn new(store: Store, settings: &EventSettings) -> Self {
        Self(Arc::new(Parts {
            store,
            sender: broadcast::channel(BATCHES_WAITING_MAX).0,
            places: Arc::new(Semaphore::new(settings.listeners_max)),
            poll_every: Duration::from_millis(settings.poll_ms.max(1)),
            polling: Mutex::new(false),
            stop: CancellationToken::new(),
        }))
    }

    /// Ends it: whoever listens hears the end, so that a process can stop.
    pub fn end(&self) {
        self.0.stop.cancel();
    }

    /// Cancelled when the feed has ended.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Listens from behind a position on, or from now on. `None` when there is no place left.
    pub async fn listen(&self, after: Option<i64>) -> Result<Option<Listener>, StoreError> {
        let Ok(place) = self.0.places.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let told = self.0.sender.subscribe();
        let present = self.poll().await?;
        Ok(Some(Listener {
            feed: self.clone(),
            told,
            waiting: VecDeque::new(),
            position: after.unwrap_or(present),
            behind: true,
            _place: place,
        }))
    }

    /// Sees to it that there is a poller, and gives the position of the present. What comes after that is
    /// either told to whoever has subscribed before, or found in the database afterwards.
    async fn poll(&self) -> Result<i64, StoreError> {
        let mut polling = self.0.polling.lock().await;
        while events::place(&self.0.store).await? == events::PLACED_MAX {}
        let present = events::head(&self.0.store).await?;
        if !*polling {
            *polling = true;
            tokio::spawn(poll(self.clone(), present));
        }
        Ok(present)
    }
}

/// Tells what is new until nobody listens any more.
async fn poll(feed: Feed, mut position: i64) {
    let mut ticks = tokio::time::interval(feed.0.poll_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    while feed.0.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        {
            let mut polling = feed.0.polling.lock().await;
            if feed.0.sender.receiver_count() == 0 {
                *polling = false;
                return;
            }
        }
        match news(&feed, &mut position).await {
            Ok(()) => away = false,
            Err(error) if !away => {
                tracing::warn!(%error, "could not read events; live clients wait");
                away = true;
            }
            Err(_) => {}
        }
    }
}

async fn news(feed: &Feed, position: &mut i64) -> Result<(), StoreError> {
    while events::place(&feed.0.store).await? == events::PLACED_MAX {}
    loop {
        let batch = events::list_after(&feed.0.store, *position, READ_MAX).await?;
        let Some(last) = batch.last().and_then(|event| event.position) else {
            return Ok(());
        };
        *position = last;
        // An error says that nobody listens, which the next tick sees.
        let _ = feed.0.sender.send(batch.into());
    }
}

impl Listener {
    /// The next event; `None` at the end of the feed.
    ///
    /// It may be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        let stop = self.feed.0.stop.clone();
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            if let Some(event) = self.waiting.pop_front() {
                self.position = event.position.unwrap_or(self.position);
                return Ok(Some(event));
            }
            if self.behind {
                let read = events::list_after(&self.feed.0.store, self.position, READ_MAX).await?;
                self.behind = i64::try_from(read.len()).unwrap_or(READ_MAX) == READ_MAX;
                self.waiting = read.into();
                continue;
            }
            let told = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                told = self.told.recv() => told,
            };
            match told {
                Ok(batch) => self.take(&batch),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    /// What is new of a batch; a gap before it is read in the database.
    fn take(&mut self, batch: &[Event]) {
        let first = batch.first().and_then(|event| event.position).unwrap_or_default();
        if first > self.position + 1 {
            self.behind = true;
            return;
        }
        let new = batch.iter().filter(|event| event.position > Some(self.position));
        self.waiting.extend(new.cloned());
    }
}
