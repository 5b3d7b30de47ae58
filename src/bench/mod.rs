//! How fast a NIC and its driver are: the same work for every packet as DPDK's testpmd does.
//!
//! | room | holds |
//! |---|---|
//! | `load`, `error` | what is asked for, and what cannot be |
//! | `session`, `threads`, `meter` | NICs with buffers; a thread for each queue; polls and what they cost |
//! | `map` | what a window costs, and the copy that it saves |
//! | `tx` | transmission, testpmd's `txonly` |
//! | `figures` | what came of it |

mod error;
mod figures;
mod load;
mod map;
mod meter;
mod session;
mod threads;
mod tx;

#[cfg(test)]
mod tests;

pub use error::BenchError;
pub use figures::{Figures, Kind};
pub use load::{LARGEST_BURST, Load};
pub use map::{MapFigures, MapRow, map};
pub use meter::Work;
pub use session::Session;
pub use tx::{Shape, Transmitter};
