//! The engine as a whole: scripted packets, and thousands of transfers in virtual time.

mod handshake;

use std::time::Duration;

use super::*;

/// An initial sequence number for tests.
fn isn(seq: u32) -> Isn {
    Isn { seq: Seq(seq), timestamp: 1000 }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The byte of the stream at an offset.
fn content(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}
