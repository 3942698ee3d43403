//! What is being fetched right now, so that nobody fetches it twice.

use parking_lot::Mutex;
use skrin_base::SegmentId;
use skrin_storage::Urgency;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// The claim on a table: beyond all slots.
pub(super) const TABLE: Range<u32> = u32::MAX - 1..u32::MAX;
/// The claim on a whole object.
pub(super) const WHOLE: Range<u32> = 0..u32::MAX;

/// All fetches under way. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<SegmentId, Vec<Flight>>>>);

struct Flight {
    slots: Range<u32>,
    landed: watch::Receiver<()>,
    /// Of whoever fetches it.
    urgency: Urgency,
}

/// What to do about something that is wanted.
pub(super) enum Boarding<P> {
    /// Fetch it; others wait until their part of this is dropped.
    Lead(P, Vec<Lead>),
    /// Somebody fetches all of it: wait until this changes or closes, then look again.
    Wait(watch::Receiver<()>),
}

/// A claim on one range; ends when dropped, also with a task that was cancelled.
pub(super) struct Lead {
    flights: Flights,
    segment: SegmentId,
    /// What was claimed.
    pub(super) slots: Range<u32>,
    landed: watch::Sender<()>,
}

impl Flights {
    /// Shows `plan` what is being fetched of a segment, and claims the ranges that it gives with what it means to do; or waits
    /// for the one of those that it names, which is as urgent from then on as who waits.
    pub(super) fn board<P>(
        &self,
        segment: SegmentId,
        plan: impl FnOnce(&[Range<u32>]) -> Result<(P, Vec<Range<u32>>), usize>,
    ) -> Boarding<P> {
        let urgency = Urgency::current();
        let mut all = self.0.lock();
        let flights = all.get(&segment).map_or(&[][..], Vec::as_slice);
        let flying: Vec<_> = flights.iter().map(|f| f.slots.clone()).collect();
        let (plan, claims) = match plan(&flying) {
            Ok(planned) => planned,
            Err(flight) => {
                let Some(flight) = flights.get(flight) else {
                    return Boarding::Wait(watch::channel(()).1);
                };
                // It may still wait for its turn behind everything that is read ahead.
                if urgency.is_awaited() {
                    flight.urgency.raise();
                }
                return Boarding::Wait(flight.landed.clone());
            }
        };
        let leads = claims.into_iter().map(|slots| {
            let (landed, waiter) = watch::channel(());
            all.entry(segment).or_default().push(Flight {
                slots: slots.clone(),
                landed: waiter,
                urgency: urgency.clone(),
            });
            Lead {
                flights: self.clone(),
                segment,
                slots,
                landed,
            }
        });
        Boarding::Lead(plan, leads.collect())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut all = self.flights.0.lock();
        if let Some(flights) = all.get_mut(&self.segment) {
            let ours = self.landed.subscribe();
            flights.retain(|f| !f.landed.same_channel(&ours));
            if flights.is_empty() {
                all.remove(&self.segment);
            }
        }
    }
}
