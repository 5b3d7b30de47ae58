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
//! A server that sends a head, a file and the end to everyone who connects:
//!
//! ```no_run
//! use std::{ops::ControlFlow, sync::atomic::AtomicBool};
//! use pagewire::{device, net::Interface, send::{Port, Wait}};
//! use pagewire::tcp::{Piece, SharedFile, Stack, run};
//!
//! let nic = device::open(&"sim:e1000,hostfwd=tcp:127.0.0.1:8080-:80".parse()?, Default::default())?.nic;
//! let interface = Interface::new(nic.mac(), "10.0.2.15/24".parse()?, None, 1500, None)?;
//! let mut stack = Stack::new(Port::new(nic, interface, Default::default())?, Default::default())?;
//! let file = SharedFile::open("data.bin")?;
//! let listener = stack.listen(80, 64)?;
//! run::<()>(&mut stack, Wait::default(), &AtomicBool::new(false), |stack, _now| {
//!     while let Some(socket) = listener.accept(stack) {
//!         let pieces = [Piece::Bytes(b"data.bin follows\n"), Piece::File(&file, 0..file.size())];
//!         if let Err(error) = socket.sendfilev(stack, &pieces) {
//!             eprintln!("{error}");
//!         }
//!         socket.close(stack);
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **When a file may be changed again.** A [`SharedFile`] holds a lease where there is one. Each send returns a mark; the connection refers to the
//! file until [`Socket::acknowledged`] has reached it. Whoever wants to change the file before that waits for the lease: the stack is told, sends
//! nothing more of the file, copies what is on its way, unmaps the file, and gives the lease up. The copied bytes are delivered, then the connection
//! is reset, so that a part is never taken for the whole, and the error says how far it came. Without a lease the size and times are looked at every
//! 16 MiB and before the last byte goes out; a retransmission may then have newer bytes than the first transmission had.
//!
//! **What bounds memory.** Windows stay mapped while their bytes are not acknowledged, within the port's window budget; what finds no room there is
//! copied, and counted. A connection that stands still for a second lets its windows go, and what it sends again is mapped again.
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

mod acks;
mod alarms;
mod connections;
mod extent;
mod frame;
mod held;
mod inbound;
mod link;
mod nanos;
mod pacing;
mod path;
mod rack;
mod receive_buffer;
mod scoreboard;
mod shape;
mod table;
mod transmit;

#[cfg(test)]
mod tests;

pub use congestion::Congestion;
pub use connection::{Connection, Events, KeepAlive, Outgoing, State, TcpConfig, TcpError};
pub use error::SocketError;
pub use file::SharedFile;
pub(crate) use file::WeakFile;
pub use isn::{Isn, IsnGenerator};
pub use options::{MAX_OPTIONS, SackBlocks, TcpOptions, Timestamps};
pub use report::StackReport;
pub use run::run;
pub use segment::{Flags, MAX_TCP_HEADER_LEN, NoSegment, Segment, TCP_HEADER_LEN, TcpHeader, refuse};
pub use seq::Seq;
pub use socket::{Event, Listener, Piece, Socket};
pub use stack::{Stack, StackConfig};
