//! A vhost-user back end as a virtio transport: a NIC in another process, which reads and writes our memory directly.
//!
//! There is no bus and there are no registers. A Unix socket carries the set-up (features, memory, where the rings are), eventfds are doorbells and
//! interrupts, and the back end maps our memory from the descriptors that it is sent. The protocol itself is the crate `vhost`'s; here is what makes
//! it a [`VirtioTransport`](hal::virtio::VirtioTransport) and a [`DmaSpace`](hal::DmaSpace).
//!
//! | room | holds |
//! |---|---|
//! | [`Connector`] (`connector`) | how the socket is reached: as client, or as server |
//! | [`VhostUser`] (`transport`) | the transport |
//! | [`VhostSpace`] (`space`) | memory and files that the back end has mapped |
//! | `session` | the connection, which is made anew when the back end was restarted |
//! | `watchdog` | ends a call that the back end does not answer |
//!
//! What a back end maps, it maps for reading and writing: it has to be trusted with it. So files are mapped only when that is asked for
//! ([`Options::files`]), and then from a descriptor open for writing, which no lease allows; the copying way is the default.
//!
//! Reference: the vhost-user protocol of QEMU's documentation; behaviour compared with DPDK's vhost library.

#![deny(unsafe_code)]

mod connector;
mod error;
mod event;
mod session;
mod space;
mod transport;
mod watchdog;

pub use connector::Connector;
pub use error::VhostUserError;
pub use space::VhostSpace;
pub use transport::{Options, VhostUser};
