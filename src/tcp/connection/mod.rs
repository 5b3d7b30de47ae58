//! A connection: segments in, segments out, time-outs.

mod acknowledgement;
mod config;
mod input;
mod output;
mod prediction;
mod state;
mod timers;
mod withdraw;

use std::ops::Range;
use std::time::Duration;

pub use config::{KeepAlive, TcpConfig};
pub use state::{Events, State, TcpError};

use super::congestion::{Controller, Prr};
use super::nanos::Nanos;
use super::options::MAX_SCALE;
use super::pacing::Pacer;
use super::rack::Rack;
use super::receive_buffer::ReceiveBuffer;
use super::rtt::Rtt;
use super::scoreboard::Scoreboard;
use super::{Flags, Isn, Segment, Seq, TcpHeader};
use timers::{Timer, Timers};

/// The segment size where the peer names none (RFC 9293 3.7.1, for IPv4; every IPv6 path has more).
const DEFAULT_MSS: u16 = 536;
/// The least segment size that is believed: 40 bytes of options and some payload, as in Linux. A peer that asks for less would have a
/// header sent for every byte.
const LEAST_MSS: u16 = 88;

/// A segment to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// the header. For a payload longer than `mss` it is that of the whole, as the NIC's segmentation wants it: the NIC counts `seq` up, and
    /// sets PSH on the last segment only. FIN, SYN and RST are never set then.
    pub header: TcpHeader,
    /// the payload as offsets in the stream, the first byte ever offered being 0; empty for a segment of control bits or an ACK
    pub payload: Range<u64>,
    /// how many bytes of payload each segment on the wire has at most, 1 at least
    pub mss: u16,
    /// whether the payload, or the control bit, was sent before
    pub retransmission: bool,
}

/// What is done about losses.
#[derive(Clone, Debug)]
enum Recovery {
    /// There are none.
    Open,
    /// They are repaired while ACKs come; it is over when everything up to `until` is acknowledged (RFC 6675, 6937).
    Fast { until: u64, prr: Prr },
    /// A time-out has passed; the window grows from one segment (RFC 5681 3.1).
    Loss { until: u64 },
}

/// A tail loss probe under way (RFC 8985 7.3).
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// The next position when it was sent.
    end: u64,
    /// Whether it sent something again.
    retransmission: bool,
}

/// A TCP connection, without the addresses, the payload and the clock.
///
/// The owner
/// - hands over every segment that arrives, with [`receive`](Self::receive),
/// - says with [`offer`](Self::offer) when the stream has grown, with [`shutdown`](Self::shutdown) that it ends there,
/// - after each of these, after [`read`](Self::read), and when the [`deadline`](Self::deadline) has passed, calls [`poll`](Self::poll) until it
///   returns `None`, and sends what it returns,
/// - forgets the connection when it [is closed](Self::is_closed) and `poll` has nothing more.
///
/// `now` is the time since an epoch of the owner's choice, and never goes back. An idle connection has no memory beside itself.
#[derive(Clone, Debug)]
pub struct Connection {
    config: TcpConfig,
    state: State,
    error: Option<TcpError>,
    local_port: u16,
    remote_port: u16,

    /// What is sent, in positions: see [`Seq`]. The first unacknowledged one, and the next.
    una: u64,
    next: u64,
    iss: Seq,
    /// The length of the stream so far, in bytes.
    offered: u64,
    /// Whether it ends there.
    shut: bool,
    /// The largest segment, options counted as payload.
    mss: u16,
    /// The peer's window in bytes, the largest that it ever was, and the segment that told it (RFC 9293 3.10.7.4).
    window: u64,
    largest_window: u64,
    window_seq: u64,
    window_ack: u64,
    /// By how much the peer shifts its windows, and whether both sides do.
    window_scale: u8,
    window_scale_agreed: bool,
    scoreboard: Scoreboard,
    rtt: Rtt,
    rack: Rack,
    congestion: Controller,
    recovery: Recovery,
    pacer: Pacer,
    probe: Option<Probe>,
    /// Duplicate ACKs, of a peer without SACK (RFC 6582).
    duplicates: u64,
    /// The next position when the congestion window last held back data: ACKs up to there may make it grow, and no others, so that it
    /// does not grow while something else is the limit (RFC 5681 3.1, RFC 9438 5.8).
    limited_until: u64,
    /// Whether the last poll sent data, and this one goes on.
    filling: bool,

    /// What is received, in positions.
    received: ReceiveBuffer,
    irs: Seq,
    /// Where the window ends that the peer was told.
    window_end: u64,
    /// The position of the peer's FIN, once known, and whether it is taken.
    fin_at: Option<u64>,
    fin_received: bool,
    /// By how much our windows are shifted.
    own_scale: u8,
    /// The bytes that arrived since the last ACK, and where that one was.
    unacknowledged: u64,
    acknowledged_upto: u64,

    sack_permitted: bool,
    timestamps: bool,
    timestamp_offset: u32,
    recent_timestamp: u32,
    recent_at: Nanos,

    timers: Timers,
    /// Time-outs in a row.
    retries: u8,
    persisted: u8,
    keep_alive_probes: u8,
    syn_lost: bool,
    /// Since when nothing was acknowledged of what is under way; when a byte moved; when something with a position was sent.
    stalled_since: Nanos,
    moved_at: Nanos,
    sent_at: Nanos,
    /// When that was sent which the last round-trip sample is of.
    sampled: Nanos,
    challenged_at: Option<Nanos>,

    // What `poll` has to do.
    handshake_due: bool,
    acknowledge_now: bool,
    probe_due: bool,
    window_probe_due: bool,
    /// A small segment goes out although the window is silly.
    override_due: bool,
    /// The first lost segment goes out, whatever the windows say.
    forced: bool,
    reset: Option<TcpHeader>,
}

impl Connection {
    /// Opens a connection actively: the SYN is what [`poll`](Self::poll) returns first.
    pub fn connect(config: TcpConfig, local_port: u16, remote_port: u16, isn: Isn, now: Duration) -> Self {
        Self::new(config, State::SynSent, local_port, remote_port, isn, Nanos::of(now))
    }

    /// Opens a connection passively: answers a `syn`, a segment with [`Flags::SYN`] and neither ACK nor RST, which the caller has checked.
    ///
    /// There are no SYN cookies, which would cost window scaling and SACK: the caller bounds how many connections are in
    /// [`State::SynReceived`], and drops the SYNs beyond that. One that nobody completes ends after 63 s.
    pub fn accept(config: TcpConfig, syn: &Segment<'_>, isn: Isn, now: Duration) -> Self {
        let now = Nanos::of(now);
        let mut connection = Self::new(config, State::SynReceived, syn.header.destination_port, syn.header.source_port, isn, now);
        connection.take_syn(&syn.header, now);
        connection
    }

    fn new(mut config: TcpConfig, state: State, local_port: u16, remote_port: u16, isn: Isn, now: Nanos) -> Self {
        config.mss = config.mss.clamp(LEAST_MSS, 65495);
        config.window = config.window.clamp(1, 1 << 30);
        config.max_burst = config.max_burst.min(65495);
        let mss = config.mss.min(DEFAULT_MSS);
        let needed = (u32::BITS - (config.window >> 16).leading_zeros()) as u8;
        Self {
            config,
            state,
            error: None,
            local_port,
            remote_port,
            una: 0,
            next: 0,
            iss: isn.seq,
            offered: 0,
            shut: false,
            mss,
            window: 0,
            largest_window: 0,
            window_seq: 0,
            window_ack: 0,
            window_scale: 0,
            window_scale_agreed: false,
            scoreboard: Scoreboard::default(),
            rtt: Rtt::new(),
            rack: Rack::default(),
            congestion: Controller::new(config.congestion, mss.into(), false),
            recovery: Recovery::Open,
            pacer: Pacer::default(),
            probe: None,
            duplicates: 0,
            limited_until: 0,
            filling: false,
            received: ReceiveBuffer::new(),
            irs: Seq(0),
            window_end: 0,
            fin_at: None,
            fin_received: false,
            own_scale: needed.min(MAX_SCALE),
            unacknowledged: 0,
            acknowledged_upto: 0,
            sack_permitted: config.sack,
            timestamps: config.timestamps,
            timestamp_offset: isn.timestamp,
            recent_timestamp: 0,
            recent_at: now,
            timers: Timers::new(),
            retries: 0,
            persisted: 0,
            keep_alive_probes: 0,
            syn_lost: false,
            stalled_since: now,
            moved_at: now,
            sent_at: now,
            sampled: Nanos::ZERO,
            challenged_at: None,
            handshake_due: true,
            acknowledge_now: false,
            probe_due: false,
            window_probe_due: false,
            override_due: false,
            forced: false,
            reset: None,
        }
    }

    /// The stream has grown by `bytes`, which may be sent from now on; the owner keeps them until they are
    /// [acknowledged](Self::acknowledged). Before the handshake is complete they wait.
    ///
    /// # Errors
    /// [`TcpError::NotOpen`] after [`shutdown`](Self::shutdown) and when the connection is over.
    pub fn offer(&mut self, bytes: u64) -> Result<(), TcpError> {
        if self.shut || self.state == State::Closed {
            return Err(TcpError::NotOpen);
        }
        // Positions have room behind it.
        self.offered = self.offered.saturating_add(bytes).min(1 << 62);
        Ok(())
    }

    /// The stream ends with what was offered: a FIN follows it. What the peer sends is still received.
    pub fn shutdown(&mut self) {
        if self.state == State::SynSent && self.next == 0 {
            return self.finish(None);
        }
        self.shut = true;
    }

    /// Ends the connection at once: a RST goes out, unless the peer knows nothing of it yet.
    pub fn abort(&mut self) {
        if self.state != State::Closed {
            self.send_reset();
            self.finish(Some(TcpError::Aborted));
        }
    }

    /// Moves the next received bytes to `out`, and returns how many there were. 0 also when nothing more will come: see
    /// [`is_finished`](Self::is_finished).
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let len = self.received.read(out);
        if len > 0 && self.state.receives() && self.wants_window_update() {
            self.acknowledge_now = true;
        }
        len
    }

    /// How many bytes can be read now.
    pub fn readable(&self) -> usize {
        self.received.ready()
    }

    /// Whether the peer has closed its side and everything was read.
    pub fn is_finished(&self) -> bool {
        self.fin_received && self.received.ready() == 0
    }

    /// How many bytes of the stream were acknowledged, from its start: the owner may forget them.
    #[inline]
    pub fn acknowledged(&self) -> u64 {
        self.una.saturating_sub(1).min(self.offered)
    }

    /// How many bytes were offered, from the stream's start.
    #[inline]
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// How many bytes were offered and never sent yet.
    #[inline]
    pub fn unsent(&self) -> u64 {
        self.offered - self.next.saturating_sub(1).min(self.offered)
    }

    /// Whether something was sent that is not acknowledged.
    pub(super) fn has_data_under_way(&self) -> bool {
        !self.scoreboard.is_empty()
    }

    /// The number behind all that was sent.
    #[inline]
    pub(super) fn sent_upto(&self) -> Seq {
        self.iss + self.next
    }

    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// What ended the connection, if it ended otherwise than by both sides closing it.
    pub fn error(&self) -> Option<TcpError> {
        self.error
    }

    /// Whether it is over. A RST may still have to be [polled](Self::poll).
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The port of this side.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The port of the peer.
    pub fn remote_port(&self) -> u16 {
        self.remote_port
    }

    /// When [`poll`](Self::poll) may have something to send without anything else happening. `None`: never.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(Nanos::duration)
    }

    /// Whether the [`deadline`](Self::deadline) may be before `at`. Cheaper than to ask for it.
    #[inline]
    pub(super) fn may_be_due_before(&self, at: Duration) -> bool {
        self.timers.soonest() < Nanos::of(at)
    }

    /// The path takes segments of `mss` bytes, without any header, at most: what an ICMP message said, less the headers. Only smaller values
    /// than before count; what is under way and larger is sent again, without a reduction of the window (RFC 1191 6.5). The caller checks
    /// with [`is_under_way`](Self::is_under_way) that the message quotes a segment of this connection (RFC 5927 4.1).
    pub fn set_path_mtu(&mut self, mss: u16, now: Duration) {
        let (mss, now) = (mss.max(LEAST_MSS), Nanos::of(now));
        if mss >= self.mss {
            return;
        }
        self.mss = mss;
        self.congestion.set_mss(mss.into());
        if self.scoreboard.lose_larger(mss.into()) > 0 {
            self.forced = true;
            if matches!(self.recovery, Recovery::Open) {
                // It is repaired as after a time-out, with the window as it is.
                self.recovery = Recovery::Loss { until: self.next };
            }
            self.arm_retransmission(now);
        }
    }

    /// Whether a sequence number is one of what was sent and is not acknowledged.
    pub fn is_under_way(&self, seq: Seq) -> bool {
        seq.position(self.iss, self.una).is_some_and(|position| (self.una..self.next).contains(&position))
    }

    /// Whether a SYN that arrives in TIME-WAIT opens another connection between the same ports, so that this one may be forgotten: its
    /// number or its timestamp is newer than all of this one (RFC 9293 3.10.7.4, RFC 6191).
    pub fn may_be_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let header = &segment.header;
        if self.state != State::TimeWait || header.flags & (Flags::SYN | Flags::ACK | Flags::RST) != Flags::SYN {
            return false;
        }
        match header.options.timestamps {
            Some(stamps) if self.timestamps && stamps.value != self.recent_timestamp => {
                stamps.value.wrapping_sub(self.recent_timestamp) as i32 > 0
            }
            _ => header.seq.since(self.irs + self.receive_next()) > 0,
        }
    }

    /// The smoothed round-trip time, once there was a sample.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed().map(Nanos::duration)
    }

    /// The congestion window in bytes.
    pub fn congestion_window(&self) -> u64 {
        self.congestion.window()
    }

    /// The bytes that the connection takes, with what it holds on the heap.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.scoreboard.heap_bytes() + self.received.heap_bytes()
    }

    /// The position behind the last byte of the stream, where the FIN is if there is one.
    #[inline]
    fn stream_end(&self) -> u64 {
        self.offered + 1
    }

    /// The position that the peer is expected to send next, its FIN counted.
    #[inline]
    fn receive_next(&self) -> u64 {
        self.received.next() + u64::from(self.fin_received)
    }

    /// It is over.
    fn finish(&mut self, error: Option<TcpError>) {
        self.state = State::Closed;
        self.error = error;
        self.timers = Timers::new();
        self.scoreboard = Scoreboard::default();
    }

    /// The clock of the timestamps: milliseconds (RFC 7323 5.4).
    #[inline]
    fn timestamp(&self, now: Nanos) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.timestamp_offset)
    }

    /// The handshake is complete: what the connection counts with until there is more.
    fn establish(&mut self, now: Nanos) {
        self.state = State::Established;
        self.una = 1;
        self.retries = 0;
        self.timers.clear(Timer::Retransmit);
        self.congestion = Controller::new(self.config.congestion, self.mss.into(), self.syn_lost);
        if self.syn_lost {
            self.rtt.after_lost_syn();
        }
        (self.stalled_since, self.moved_at, self.sent_at) = (now, now, now);
        if let Some(idle) = self.config.idle_timeout {
            self.timers.set(Timer::Idle, now + Nanos::of(idle));
        }
        self.heard(now);
    }
}
