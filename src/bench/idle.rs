//! Queues that are served beside a measured one, and over which nothing goes.

use hal::{NicError, Pool, RxBurst, RxQueue, TxQueue};

/// Pairs of queues on which nothing is expected. There is one look in [`TURNS`] turns, at one of them after the other, so what they cost does not
/// grow with their number: only how long it takes until something is noticed does.
#[derive(Default)]
pub(super) struct Idle<'q> {
    pairs: Vec<(&'q mut dyn TxQueue, &'q mut dyn RxQueue)>,
    turn: usize,
    arrived: RxBurst,
}

/// Turns of the measured queue for one look: with full bursts of 32, one for 256 packets.
const TURNS: usize = 8;
/// Packets that are taken with a look.
const LIMIT: usize = 32;

impl<'q> Idle<'q> {
    pub fn new(pairs: Vec<(&'q mut dyn TxQueue, &'q mut dyn RxQueue)>) -> Self {
        Self { pairs, turn: 0, arrived: RxBurst::unread(LIMIT) }
    }

    /// Gives the receive queues buffers, so that something could arrive.
    pub fn begin(&mut self, pool: &mut Pool) -> Result<(), NicError> {
        self.pairs.iter_mut().try_for_each(|(_, rx)| rx.refill(pool).map(drop))
    }

    /// A turn of the measured queue is over.
    #[inline(always)]
    pub fn turn(&mut self, pool: &mut Pool) -> Result<(), NicError> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        self.turn += 1;
        if self.turn.is_multiple_of(TURNS) { self.look(pool) } else { Ok(()) }
    }

    /// Looks at the next pair. What came is dropped.
    #[inline(never)]
    fn look(&mut self, pool: &mut Pool) -> Result<(), NicError> {
        let next = self.turn / TURNS % self.pairs.len();
        let (tx, rx) = &mut self.pairs[next];
        tx.reap()?;
        if rx.receive(&mut self.arrived, LIMIT)? > 0 {
            self.arrived.clear();
            rx.refill(pool)?;
        }
        Ok(())
    }
}
