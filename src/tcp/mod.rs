//! TCP: an engine that has no send buffer.
//!
//! | room | holds |
//! |---|---|
//! | [`connection`] | [`Connection`]: a connection as a machine of segments in, segments out, and time-outs |
//! | [`segment`] | [`Segment`], [`TcpHeader`]: headers read and written; [`refuse`], the answer where there is no connection |
//! | [`options`] | [`TcpOptions`] |
//! | [`seq`] | [`Seq`]: sequence numbers |
//! | [`isn`] | [`IsnGenerator`]: initial sequence numbers |
//! | [`congestion`] | [`Congestion`]: CUBIC or Reno |
//! | [`rtt`] | the round-trip time and the limits of the time-out |
//!
//! The engine does no I/O, reads no clock and draws no random numbers: segments, `now` and [initial numbers](Isn) are arguments. Of what it
//! sends it knows stream offsets only ([`Outgoing::payload`]); what they refer to is the caller's affair: pages of a file, a header in a
//! buffer. The caller keeps that until it is [acknowledged](Connection::acknowledged), and for as long as a NIC has descriptors of it.

pub mod congestion;
pub mod connection;
pub mod isn;
pub mod options;
pub mod rtt;
pub mod segment;
pub mod seq;

mod pacing;
mod rack;
mod receive_buffer;
mod scoreboard;

#[cfg(test)]
mod tests;

pub use congestion::Congestion;
pub use connection::{Connection, Events, KeepAlive, Outgoing, State, TcpConfig, TcpError};
pub use isn::{Isn, IsnGenerator};
pub use options::{MAX_OPTIONS, SackBlocks, TcpOptions, Timestamps};
pub use segment::{Flags, MAX_TCP_HEADER_LEN, NoSegment, Segment, TCP_HEADER_LEN, TcpHeader, refuse};
pub use seq::Seq;
