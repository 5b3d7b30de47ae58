//! A wire whose other end is the test itself.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::{MAX_FRAME, QUEUE, WireError};

/// How long [`Wire::send`] waits for a device that takes no frames.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rig's end of a [local](local()) wire; goes into [`WireConfig::Local`](super::WireConfig::Local).
pub struct End {
    pub(super) from_device: Sender<Vec<u8>>,
    pub(super) to_device: Receiver<Vec<u8>>,
    /// Dropped when nothing can come or go any more.
    pub(super) plugged: Arc<()>,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("End")
    }
}

/// The test's end of a [local](local()) wire. Dropping it unplugs the cable: what the device sends then is gone, as on a real one.
#[derive(Debug)]
pub struct Wire {
    pub(super) from_device: Receiver<Vec<u8>>,
    pub(super) to_device: Sender<Vec<u8>>,
    plugged: Weak<()>,
}

/// A wire inside this process: one end for a rig, one for the test.
///
/// ```
/// # use pagewire_hw_sim::wire;
/// let (end, wire) = wire::local();
/// assert!(!wire.rig_is_gone());
/// drop(end);
/// assert!(wire.rig_is_gone());
/// ```
pub fn local() -> (End, Wire) {
    let (from_device, received) = bounded(QUEUE);
    let (sent, to_device) = bounded(QUEUE);
    let plugged = Arc::new(());
    let wire = Wire { from_device: received, to_device: sent, plugged: Arc::downgrade(&plugged) };
    (End { from_device, to_device, plugged }, wire)
}

impl Wire {
    /// The next frame that the device sent, with its Ethernet header and without a frame check sequence. `None` when none comes within
    /// `timeout`, or the rig is gone and all its frames have been received.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.from_device.recv_timeout(timeout).ok()
    }

    /// Sends a frame of 1 to [`MAX_FRAME`] bytes to the device, without a frame check sequence. Frames wait while the device takes none;
    /// this call waits, at most 10 s, once 4096 do.
    ///
    /// # Errors
    /// [`WireError::Length`], [`WireError::Gone`], [`WireError::Full`].
    pub fn send(&self, frame: &[u8]) -> Result<(), WireError> {
        if !(1..=MAX_FRAME).contains(&frame.len()) {
            return Err(WireError::Length(frame.len()));
        }
        if self.rig_is_gone() {
            return Err(WireError::Gone);
        }
        self.to_device.send_timeout(frame.to_vec(), PATIENCE).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => WireError::Full(PATIENCE.as_secs()),
            SendTimeoutError::Disconnected(_) => WireError::Gone,
        })
    }

    /// Whether the rig has ended. Frames that it sent before can still be received.
    pub fn rig_is_gone(&self) -> bool {
        self.plugged.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_impossible_lengths_are_refused() {
        let (_end, wire) = local();
        assert!(matches!(wire.send(&[]), Err(WireError::Length(0))));
        assert!(matches!(wire.send(&vec![0; MAX_FRAME + 1]), Err(WireError::Length(_))));
        wire.send(&vec![0; MAX_FRAME]).unwrap();
    }

    #[test]
    fn frames_that_were_sent_before_the_end_can_be_received_after_it() {
        let (end, wire) = local();
        end.from_device.send(vec![1, 2, 3]).unwrap();
        drop(end);
        assert!(wire.rig_is_gone());
        assert_eq!(wire.receive(Duration::ZERO), Some(vec![1, 2, 3]));
        assert_eq!(wire.receive(Duration::from_secs(10)), None);
        assert!(matches!(wire.send(&[1]), Err(WireError::Gone)));
    }
}
