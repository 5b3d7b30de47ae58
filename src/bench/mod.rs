//! How fast a NIC and its driver are: the same work for every packet as DPDK's testpmd does.
//!
//! | room | holds |
//! |---|---|
//! | `load`, `error` | what is asked for, and what cannot be |
//! | `session`, `threads`, `meter` | NICs with buffers; a thread for each queue; polls and what they cost |
//! | `map` | what a window costs, and the copy that it saves |
//! | `idle` | queues that are served beside, and carry nothing |
//! | `tx` | transmission, testpmd's `txonly` |
//! | `rx`, `forward`, `latency` | reception; what is received is sent on; round trips of one packet |
//! | `figures`, `report` | what came of it; a page with the curves |

mod error;
mod figures;
mod forward;
mod idle;
mod latency;
mod load;
mod map;
mod meter;
mod report;
mod rx;
mod session;
mod threads;
mod tx;

#[cfg(test)]
mod tests;

pub use error::BenchError;
pub use figures::{Figures, Kind};
pub use forward::Forwarding;
pub use latency::Latency;
pub use load::{LARGEST_BURST, Load};
pub use map::{MapFigures, MapRow, map};
pub use meter::Work;
pub use report::html;
pub use session::Session;
pub use tx::{Shape, Transmitter};
