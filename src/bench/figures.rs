//! What came of a measurement.

use serde::Serialize;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TxFigures {
    /// Packets completed.
    pub frames: u64,
    /// Packets a second.
    pub pps: f64,
    /// Bits of packets a second.
    pub bits_per_second: f64,
    /// Nanoseconds a packet that the driver was at work: in polls that posted or reaped something. In a guest whose clock counts instructions this is
    /// their number.
    pub busy_ns_per_frame: f64,
    /// Polls that found nothing to do.
    pub idle_polls: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// Descriptors written.
    pub descriptors: u64,
    /// The whole time.
    pub seconds: f64,
}
