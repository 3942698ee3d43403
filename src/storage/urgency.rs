//! Who goes first where requests wait for one another: what somebody waits for overtakes what will be wanted later.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

tokio::task_local! {
    static CURRENT: Urgency;
}

/// Whether somebody waits for what a task does. Tasks that say nothing are urgent. Clones are the same: what is raised in one place is
/// raised everywhere.
#[derive(Debug, Clone, Default)]
pub struct Urgency(Option<Arc<watch::Sender<bool>>>);

impl Urgency {
    /// Work that nobody waits for yet: reading ahead, uploads.
    pub fn later() -> Self {
        Self(Some(Arc::new(watch::Sender::new(false))))
    }

    /// That of the task that asks.
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Whether somebody waits, by now.
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_none_or(|raised| *raised.borrow())
    }

    /// Somebody came to wait: requests of this work that have no place yet go before those that nobody waits for.
    pub fn raise(&self) {
        if let Some(raised) = &self.0 {
            raised.send_replace(true);
        }
    }

    /// Does the work as this urgent. A task that it spawns does not know of it: hand [`Urgency::current`] on.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    fn is_urgent(&self) -> bool {
        self.0.is_none()
    }

    async fn raised(&self) {
        if let Some(raised) = &self.0 {
            // The sender lives as long as `self`.
            let _ = raised.subscribe().wait_for(|raised| *raised).await;
        }
    }
}

/// A number of places that requests take while they run. Those who wait for one stand in order, in three queues: what is urgent; what was
/// begun ahead and is awaited by now, which asks for much at once; and what nobody waits for. The second never has more than three
/// quarters of the places together with the third, and that never more than half: whoever is before finds one free or gets the next.
#[derive(Debug)]
pub struct Places {
    all: Queue,
    awaited: Queue,
    later: Queue,
}

/// So many at once; the others stand in order.
#[derive(Debug)]
struct Queue {
    places: Arc<Semaphore>,
    max: u32,
}

impl Queue {
    fn new(max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max)),
            max: u32::try_from(max).unwrap_or(u32::MAX),
        }
    }

    /// `None` only if the semaphore were closed, which nobody does.
    async fn take(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        places.acquire_many_owned(count.min(self.max)).await.ok()
    }
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _all: Option<OwnedSemaphorePermit>,
    _awaited: Option<OwnedSemaphorePermit>,
    _later: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many, and at least one.
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Queue::new(count),
            awaited: Queue::new((count - count / 4).max(1)),
            later: Queue::new(count.div_ceil(2)),
        }
    }

    /// Waits for `count` places, or for all where there are fewer, as urgently as the task is.
    pub async fn take(&self, count: u32) -> Place {
        let urgency = Urgency::current();
        let later = match urgency.is_awaited() {
            true => None,
            false => tokio::select! {
                biased;
                () = urgency.raised() => None,
                place = self.later.take(count) => place,
            },
        };
        let awaited = match urgency.is_urgent() {
            true => None,
            false => self.awaited.take(count).await,
        };
        Place {
            _all: self.all.take(count).await,
            _awaited: awaited,
            _later: later,
        }
    }
}
