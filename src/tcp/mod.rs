//! TCP whose send buffer is the page cache: an engine without I/O, and a stack that runs it on a NIC.
//!
//! | room | holds |
//! |---|---|
//! | [`stack`] | [`Stack`]: all connections on one NIC |
//! | [`socket`] | [`Listener`], [`Socket`]: what a program has in hand; [`Event`]s |
//! | [`file`](mod@file) | [`SharedFile`]: a file that is sent, and what keeps it from changing |
//! | [`mod@run`] | [`run()`]: polls, reads the clock, waits |
//! | [`report`] | [`StackReport`]: what was done |
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
pub mod error;
pub mod file;
pub mod isn;
pub mod options;
pub mod report;
pub mod rtt;
pub mod run;
pub mod segment;
pub mod seq;
pub mod socket;
pub mod stack;

mod alarms;
mod connections;
mod extent;
mod frame;
mod held;
mod inbound;
mod link;
mod nanos;
mod pacing;
mod rack;
mod receive_buffer;
mod scoreboard;
mod table;
mod transmit;

#[cfg(test)]
mod tests;

pub use congestion::Congestion;
pub use connection::{Connection, Events, KeepAlive, Outgoing, State, TcpConfig, TcpError};
pub use error::SocketError;
pub use file::SharedFile;
pub use isn::{Isn, IsnGenerator};
pub use options::{MAX_OPTIONS, SackBlocks, TcpOptions, Timestamps};
pub use report::StackReport;
pub use run::run;
pub use segment::{Flags, MAX_TCP_HEADER_LEN, NoSegment, Segment, TCP_HEADER_LEN, TcpHeader, refuse};
pub use seq::Seq;
pub use socket::{Event, Listener, Piece, Socket};
pub use stack::{Stack, StackConfig};
