//! Sends files straight from the page cache to the wire.
//!
//! pagewire is a user-space NIC driver whose transmit descriptors point at the file's own page-cache pages. The CPU writes headers and descriptors;
//! the NIC reads the data, computes the checksums and sends. Where something is missing — a NIC that does not gather, a
//! source that is a pipe — it copies instead, and the [report](send::Report) counts every byte with the reason.
//!
//! A file in 20 lines (`examples/send_file.rs`):
//!
//! ```no_run
#![doc = include_str!("../examples/send_file.rs")]
//! ```
//!
//! | room | holds |
//! |---|---|
//! | [`device`] | from an address, `sim:e1000`, to a started NIC |
//! | [`file`](mod@file) | sources, windows of files that are mapped for the device, leases |
//! | [`http`] | requests in, pieces of files out: HTTP/1.1 without a connection |
//! | [`net`] | addresses, ARP and neighbour discovery, headers |
//! | [`phy`] | any NIC for smoltcp, for programs that want sockets |
//! | [`send`] | a port (NIC, buffers, windows, address), sends over UDP, and to TCP servers |
//! | [`tcp`] | TCP whose send buffer is the page cache: a stack on a port, `sendfile`, `sendfilev` |
//! | [`receive`] | the other end: an ordinary socket |
//! | [`bench`](mod@bench) | how fast a NIC and its driver send, receive, forward and answer |
//!
//! The drivers and what they share are crates of their own: `pagewire-hal` (rings, DMA memory, the NIC traits), `pagewire-e1000`, and `pagewire-hw-sim`
//! (the simulator). Nothing in the library prints: what it has to tell goes through [`tracing`].

#![deny(unsafe_code)]

pub mod bench;
pub mod device;
pub mod file;
pub mod http;
pub mod net;
#[cfg(feature = "smoltcp")]
pub mod phy;
pub mod receive;
pub mod send;
pub mod tcp;
