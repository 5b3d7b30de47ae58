//! What came of a measurement.

use serde::Serialize;

use super::Load;
use super::latency::Latency;
use super::meter::Tally;

/// What a measurement was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Transmission.
    Tx,
    /// Reception.
    Rx,
    /// Reception, and transmission of what was received.
    Forward,
    /// One packet to and fro.
    Latency,
}

/// The figures of all queues together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// What was measured.
    pub kind: Kind,
    /// Packets handled together.
    pub burst: usize,
    /// Queues, with a thread each.
    pub queues: usize,
    /// Pairs of queues that the first one's thread served besides, and over which nothing went.
    pub idle_queues: usize,
    /// Packets completed, received, forwarded, or come back.
    pub frames: u64,
    /// Packets a second.
    pub pps: f64,
    /// Bits of packets a second.
    pub bits_per_second: f64,
    /// Cycles a packet that the driver was at work: in polls that did something. The clock of cycles is [`hal::cycles`].
    pub cycles_per_packet: f64,
    /// The same as a time in nanoseconds. In a guest whose clock counts instructions both are their number.
    pub busy_ns_per_frame: f64,
    /// How fast the clock of cycles is.
    pub cycles_per_second: f64,
    /// Polls that did something.
    pub busy_polls: u64,
    /// Polls that found nothing to do.
    pub idle_polls: u64,
    /// Doorbells rung, of transmit and receive queues.
    pub doorbells: u64,
    /// Transmit descriptors written.
    pub descriptors: u64,
    /// Packets that a NIC or a queue dropped where it was to receive them, or that did not come back.
    pub drops: u64,
    /// The whole time.
    pub seconds: f64,
    /// How long nothing came or went any more at its end: a device that stands still, or nobody who sends.
    pub quiet_seconds: f64,
    /// The headers were written beforehand: not to be compared with figures where they are written for each packet.
    pub prebuilt: bool,
    /// The times of single round trips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// What one queue did.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub frames: u64,
    pub bytes: u64,
    pub doorbells: u64,
    pub descriptors: u64,
    pub drops: u64,
}

impl Figures {
    /// The sum of what the queues did.
    pub(super) fn sum(kind: Kind, load: &Load, shares: &[(Tally, Share)]) -> Self {
        let total = |figure: fn(&(Tally, Share)) -> u64| shares.iter().map(figure).sum::<u64>();
        let seconds = shares.iter().map(|(tally, _)| tally.elapsed.as_secs_f64()).fold(0.0, f64::max);
        let all: f64 = shares.iter().map(|(tally, _)| tally.elapsed.as_secs_f64()).sum();
        let per = |amount: f64, of: f64| if of > 0.0 { amount / of } else { 0.0 };
        let frames = total(|(_, share)| share.frames);
        let cycles_per_packet = per(total(|(tally, _)| tally.busy) as f64, frames as f64);
        let cycles_per_second = per(total(|(tally, _)| tally.cycles) as f64, all);
        Self {
            kind,
            burst: load.burst,
            queues: shares.len(),
            idle_queues: 0,
            frames,
            pps: per(frames as f64, seconds),
            bits_per_second: per(total(|(_, share)| share.bytes) as f64 * 8.0, seconds),
            cycles_per_packet,
            busy_ns_per_frame: per(cycles_per_packet * 1e9, cycles_per_second),
            cycles_per_second,
            busy_polls: total(|(tally, _)| tally.busy_polls),
            idle_polls: total(|(tally, _)| tally.idle_polls),
            doorbells: total(|(_, share)| share.doorbells),
            descriptors: total(|(_, share)| share.descriptors),
            drops: total(|(_, share)| share.drops),
            seconds,
            quiet_seconds: shares.iter().map(|(tally, _)| tally.quiet.as_secs_f64()).reduce(f64::min).unwrap_or(0.0),
            prebuilt: false,
            latency: None,
        }
    }
}
