//! A burst that is handed over, and what came of it.

use hal::nic::TxCounters;
use hal::{Burst, NicError};

use crate::send::SendError;

/// What came of a burst.
pub(super) struct Posted {
    pub frames: usize,
    pub counters: TxCounters,
    error: Option<NicError>,
}

impl Posted {
    /// Posts a burst and empties it: frames that found no room are built again later.
    pub fn post(nic: &mut dyn hal::Nic, burst: &mut Burst<'_>) -> Self {
        let queue = nic.tx(0);
        let before = queue.counters();
        let error = if burst.is_empty() { None } else { queue.post(burst).err() };
        let after = queue.counters();
        burst.clear();
        let counters = TxCounters {
            frames: after.frames - before.frames,
            descriptors: after.descriptors - before.descriptors,
            doorbells: after.doorbells - before.doorbells,
        };
        Self { frames: counters.frames as usize, counters, error }
    }

    pub fn result(self) -> Result<usize, SendError> {
        self.error.map_or(Ok(self.frames), |error| Err(error.into()))
    }
}
