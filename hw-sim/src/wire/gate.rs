//! Withholds the doorbell while frames of earlier doorbells are still in QEMU.
//!
//! QEMU queues a frame when the socket to its peer is full, and drops it, silently, when 10,000 are queued. It does not say how many
//! are, but it can be known that none is: the socket is empty, QEMU's main loop has had the occasion to write to it, and it is still empty.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hal::RegisterError;

use super::datagram::Delivery;
use super::relay::{Relay, Traffic};

/// How many frames, and how many bytes, cannot have filled QEMU's socket buffer (212,992 bytes with the kernel's own overhead), so that
/// nothing can be queued behind them.
const HARMLESS: (u64, u64) = (16, 32 << 10);

/// How many accesses give QEMU's main loop the occasion to write to a socket: in the first one's turn it may have looked at the socket
/// too early, in the second one's turn it looks again and may serve the access first, before the third one's turn it has served the socket.
const TURNS: usize = 3;

/// Stands before every register write of a rig whose wire is relayed.
pub(crate) struct Gate {
    traffic: Arc<Traffic>,
    stream: UnixStream,
    delivery: Option<Arc<Delivery>>,
    timeout: Duration,
    /// What had passed when QEMU's queue was last known to be empty.
    proven: Mutex<(u64, u64)>,
}

impl Gate {
    /// A gate for `relay`, that makes a writer wait at most `timeout`. With a datagram wire, `delivery` says how that one is doing.
    pub(crate) fn new(relay: &Relay, delivery: Option<Arc<Delivery>>, timeout: Duration) -> io::Result<Self> {
        Ok(Self { traffic: relay.traffic(), stream: relay.stream()?, delivery, timeout, proven: Mutex::default() })
    }

    /// Waits until a doorbell cannot make QEMU drop a frame, and keeps other writers out as long as the result lives. `turn` makes one
    /// access that changes nothing.
    ///
    /// # Errors
    /// [`RegisterError::Unreachable`] when the other end has not read for the time-out, and the error of `turn`.
    pub(crate) fn pass(&self, turn: impl Fn() -> Result<(), RegisterError>) -> Result<Open<'_>, RegisterError> {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let harmless = |passed: (u64, u64)| passed.0 - proven.0 < HARMLESS.0 && passed.1 - proven.1 < HARMLESS.1;
        if let Some(passed) = self.wait_empty(harmless, turn)? {
            *proven = passed;
        }
        Ok(Open { _turn: proven })
    }

    /// Waits, at most the time-out, until all that the device has sent is with the other end.
    ///
    /// # Errors
    /// As [`pass`](Self::pass), and when QEMU is gone.
    pub(crate) fn drain(&self, turn: impl Fn() -> Result<(), RegisterError>) -> Result<(), RegisterError> {
        if self.wait_empty(|_| false, &turn)?.is_none() {
            turn()?;
        }
        match &self.delivery {
            Some(delivery) => delivery.wait_delivered(self.traffic.passed().0, self.timeout).map_err(|reason| full(&reason)),
            None => Ok(()),
        }
    }

    /// Waits until QEMU's queue is empty, and returns what had passed then; `None` when that does not matter: what has passed is
    /// `harmless`, or nothing will pass any more.
    fn wait_empty(
        &self,
        harmless: impl Fn((u64, u64)) -> bool,
        turn: impl Fn() -> Result<(), RegisterError>,
    ) -> Result<Option<(u64, u64)>, RegisterError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(reason) = self.delivery.as_ref().and_then(|delivery| delivery.stalled(self.timeout)) {
                return Err(full(&reason));
            }
            // The access itself will say that QEMU is gone.
            if self.traffic.ended() {
                return Ok(None);
            }
            if let Some(passed) = self.empty() {
                if harmless(passed) {
                    return Ok(None);
                }
                for _ in 0..TURNS {
                    turn()?;
                }
                if self.empty() == Some(passed) {
                    return Ok(Some(passed));
                }
            } else {
                self.traffic.wait_change(Duration::from_millis(1));
            }
            if Instant::now() >= deadline {
                return Err(full(&match &self.delivery {
                    Some(delivery) => delivery.behind(self.timeout),
                    None => format!("nobody has called Wire::receive for {} s", self.timeout.as_secs_f32()),
                }));
            }
        }
    }

    /// What has passed, when there is nothing between QEMU and the queue.
    fn empty(&self) -> Option<(u64, u64)> {
        // The order matters: see `outbound` of the relay. An error is an end, which the relay finds too.
        let unread = rustix::io::ioctl_fionread(&self.stream).unwrap_or(0);
        (unread == 0 && !self.traffic.busy()).then(|| self.traffic.passed())
    }
}

/// The gate is open for one write.
pub(crate) struct Open<'g> {
    _turn: MutexGuard<'g, (u64, u64)>,
}

fn full(reason: &str) -> RegisterError {
    RegisterError::Unreachable(format!("the wire is full: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;

    use super::*;
    use crate::wire::local;

    fn gate(timeout: Duration) -> (Gate, Relay, UnixStream, crate::wire::Wire) {
        let (ours, qemu) = UnixStream::pair().unwrap();
        let (end, wire) = local();
        let relay = Relay::start(ours, end).unwrap();
        (Gate::new(&relay, None, timeout).unwrap(), relay, qemu, wire)
    }

    #[test]
    fn a_quiet_wire_costs_no_access() {
        let (gate, _relay, mut qemu, wire) = gate(Duration::from_secs(10));
        qemu.write_all(&[0, 0, 0, 1, 7]).unwrap();
        wire.receive(Duration::from_secs(10)).unwrap();
        gate.pass(|| panic!("an access")).unwrap();
    }

    #[test]
    fn frames_that_qemu_still_writes_are_waited_for() {
        let (gate, _relay, qemu, wire) = gate(Duration::from_secs(10));
        for _ in 0..20 {
            (&qemu).write_all(&[0, 0, 0, 1, 7]).unwrap();
        }
        // QEMU writes one more frame in the third turn, and none in the next three.
        let turns = Cell::new(0);
        let turn = || {
            turns.set(turns.get() + 1);
            if turns.get() == 3 {
                (&qemu).write_all(&[0, 0, 0, 1, 8]).unwrap();
            }
            Ok(())
        };
        drop(gate.pass(turn).unwrap());
        assert_eq!((turns.get(), wire.from_device.len()), (6, 21));
        gate.pass(|| panic!("an access")).unwrap();
    }

    #[test]
    fn a_reader_that_stopped_is_an_error_after_the_time_out() {
        let (gate, _relay, mut qemu, wire) = gate(Duration::from_millis(200));
        for _ in 0..super::super::QUEUE + 10 {
            qemu.write_all(&[0, 0, 0, 1, 7]).unwrap();
        }
        let error = gate.pass(|| Ok(())).map(drop).unwrap_err().to_string();
        assert!(error.ends_with("the wire is full: nobody has called Wire::receive for 0.2 s"), "{error}");
        while wire.receive(Duration::from_millis(200)).is_some() {}
        gate.pass(|| Ok(())).unwrap();
    }
}
