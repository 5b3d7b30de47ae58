//! How fast a NIC and its driver are: the same work for every packet as DPDK's testpmd does.
//!
//! | room | holds |
//! |---|---|
//! | `load`, `error` | what is asked for, and what cannot be |
//! | `figures` | what came of it |
//! | `map` | what a window costs, and the copy that it saves |
//! | `tx` | transmission, testpmd's `txonly` |

mod error;
mod figures;
mod load;
mod map;
mod tx;

pub use error::BenchError;
pub use figures::TxFigures;
pub use load::TxLoad;
pub use map::{MapFigures, MapRow, map};
pub use tx::transmit;
