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

    /// Whether somebody waits by now.
    pub fn is_now(&self) -> bool {
        self.0.as_ref().is_none_or(|raised| *raised.borrow())
    }

    /// Somebody waits from now on: requests of this work that wait for a place are served with the urgent ones.
    pub fn raise(&self) {
        if let Some(raised) = &self.0 {
            raised.send_replace(true);
        }
    }

    /// Does the work as this urgent. A task that it spawns does not know of it: hand [`Urgency::current`] on.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    async fn raised(&self) {
        if let Some(raised) = &self.0 {
            // The sender lives as long as `self`.
            let _ = raised.subscribe().wait_for(|raised| *raised).await;
        }
    }
}

/// A number of places that requests take while they run. Those who wait for one stand in order, but what nobody waits for stands
/// in a queue of its own and never has all the places, so that urgent requests find one free or are the next to get one.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    later: Arc<Semaphore>,
    later_max: usize,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _all: Option<OwnedSemaphorePermit>,
    _later: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many, at least one; a quarter, where there is more than one, is for urgent requests only.
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        let later_max = (count - count.div_ceil(4)).max(1);
        Self {
            all: Arc::new(Semaphore::new(count)),
            later: Arc::new(Semaphore::new(later_max)),
            later_max,
        }
    }

    /// Waits for `count` places, at most as many as there are, as urgently as the task is.
    pub async fn take(&self, count: u32) -> Place {
        let urgency = Urgency::current();
        let later = match urgency.is_now() {
            true => None,
            false => {
                let count = count.min(u32::try_from(self.later_max).unwrap_or(u32::MAX));
                tokio::select! {
                    biased;
                    () = urgency.raised() => None,
                    place = Arc::clone(&self.later).acquire_many_owned(count) => place.ok(),
                }
            }
        };
        // An error only if the semaphore were closed, which nobody does.
        let all = Arc::clone(&self.all).acquire_many_owned(count).await.ok();
        Place {
            _all: all,
            _later: later,
        }
    }
}
