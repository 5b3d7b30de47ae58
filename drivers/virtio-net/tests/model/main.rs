//! The driver against the model of a virtio network device: what leaves and arrives, and that the specification's rules are kept. Every test
//! runs over both layouts, with and without what changes how they are used.

mod bench;
#[path = "../../../e1000/tests/headers/mod.rs"]
mod headers;
#[path = "../../../e1000/tests/bench/mod.rs"]
mod shared;

mod control;
mod fault;
mod notify;
mod offload;
mod random;
mod receive;
mod reset;
mod start;
mod transmit;
