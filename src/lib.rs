//! Sends files straight from the page cache to the wire.

#![deny(unsafe_code)]

pub mod device;
pub mod file;
pub mod net;
pub mod receive;
pub mod send;
