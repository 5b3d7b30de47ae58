//! The driver against the model of the 82540EM: what leaves and arrives, and that the manual's rules are kept.

mod bench;
#[path = "../headers/mod.rs"]
mod headers;
#[path = "../bench/mod.rs"]
mod shared;

mod fault;
mod filter;
mod forward;
mod offload;
mod random;
mod receive;
mod reset;
mod segmentation;
mod start;
mod transmit;
