//! Sending files.
//!
//! | room | holds |
//! |---|---|
//! | [`port`] | [`Port`]: a NIC with its buffers, its windows and its address; answers ARP and ping |
//! | [`udp`] | [`UdpSend`]: a file or stream as UDP datagrams |
//! | [`tcp`] | [`TcpSend`]: a file or stream to a TCP server |
//! | [`pace`] | [`Pacer`]: so many bits a second, no more |
//! | [`report`] | [`Report`]: what was done |
//! | [`mod@run`] | [`run()`]: takes the steps, reads the clock, waits |
//!
//! Nothing here reads a clock but [`run()`]: time is an argument, so that everything also runs in virtual time.

pub mod error;
mod gather;
pub mod pace;
pub mod port;
pub mod report;
pub mod run;
pub mod tcp;
pub mod udp;

pub use error::SendError;
pub use pace::Pacer;
pub use port::{Port, PortConfig};
pub(crate) use port::{buffers_of, push_copied};
pub use report::{CopyReason, Report, Stop, TcpFigures};
pub(crate) use run::{CHECK, Waiter};
pub use run::{Progress, Transfer, Wait, run};
pub use tcp::{TcpOptions, TcpSend};
pub(crate) use udp::secure;
pub use udp::{Framing, Stability, Step, UdpOptions, UdpSend};

#[cfg(test)]
mod tests;
