//! What is being fetched right now, so that nobody fetches it twice.

use parking_lot::Mutex;
use skrin_base::SegmentId;
use std::collections::HashMap;
use std::ops::Range;
use tokio::sync::watch;

/// The claim on a table: beyond all slots.
pub(super) const TABLE: Range<u32> = u32::MAX - 1..u32::MAX;
/// The claim on a whole object.
pub(super) const WHOLE: Range<u32> = 0..u32::MAX;

/// All fetches under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<SegmentId, Vec<Flight>>>);

struct Flight {
    slots: Range<u32>,
    landed: watch::Receiver<()>,
}

/// What to do about something that is wanted.
pub(super) enum Boarding<'a> {
    /// Fetch it; others wait until this is dropped.
    Lead(Lead<'a>),
    /// Somebody fetches some of it: wait until this changes or closes, then look again.
    Wait(watch::Receiver<()>),
}

/// A claim; ends when dropped, also with a task that was cancelled.
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    segment: SegmentId,
    landed: watch::Sender<()>,
}

impl Flights {
    /// Claims `ranges`, unless somebody fetches one of the `wanted` slots already.
    pub(super) fn board(
        &self,
        segment: SegmentId,
        wanted: impl Fn(&Range<u32>) -> bool,
        ranges: impl IntoIterator<Item = Range<u32>>,
    ) -> Boarding<'_> {
        let mut all = self.0.lock();
        let flights = all.entry(segment).or_default();
        if let Some(flight) = flights.iter().find(|f| wanted(&f.slots)) {
            return Boarding::Wait(flight.landed.clone());
        }
        let (landed, waiter) = watch::channel(());
        flights.extend(ranges.into_iter().map(|slots| Flight {
            slots,
            landed: waiter.clone(),
        }));
        Boarding::Lead(Lead {
            flights: self,
            segment,
            landed,
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Drop for Lead<'_> {
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
