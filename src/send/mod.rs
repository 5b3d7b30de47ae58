//! Sending files.
//!
//! | room | holds |
//! |---|---|
//! | [`port`] | [`Port`]: a NIC with its buffers, its windows and its address; answers ARP and ping |
//! | [`options`] | [`UdpOptions`]: what is to be sent as datagrams, and how |
//! | [`udp`] | [`UdpSend`]: a file or stream as UDP datagrams; one file for the gathering way, one for the copying way |
//! | [`tcp`] | [`TcpSend`]: a file or stream to a TCP server |
//! | [`pace`] | [`Pacer`]: so many bits a second, no more |
//! | [`report`] | [`Report`]: what was done |
//! | [`mod@repeat`] | [`repeat()`]: a file several times, and what the later sends cost |
//! | [`mod@run`] | [`run()`]: takes the steps, reads the clock, waits |
//!
//! Nothing here reads a clock but [`run()`]: time is an argument, so that everything also runs in virtual time.

pub mod error;
pub mod options;
pub mod pace;
pub mod port;
pub mod repeat;
pub mod report;
pub mod run;
pub mod tcp;
pub mod udp;

pub use error::SendError;
pub use options::{COPY_BELOW, Framing, Stability, UdpOptions};
pub use pace::Pacer;
#[cfg(feature = "smoltcp")]
pub(crate) use port::push_copied;
pub(crate) use port::{Audience, buffers_of};
pub use port::{Port, PortConfig};
pub use repeat::{Cost, Repeated, repeat};
pub use report::{CopyReason, Report, Stop, TcpFigures};
pub(crate) use run::{CHECK, Waiter};
pub use run::{Progress, Transfer, Wait, run};
pub use tcp::{TcpOptions, TcpSend};
pub(crate) use udp::secure;
pub use udp::{Step, UdpSend};

#[cfg(test)]
mod tests;
