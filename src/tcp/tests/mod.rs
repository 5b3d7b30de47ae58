//! The engine as a whole: scripted packets, and thousands of transfers in virtual time.

mod fuzz;
mod script;
mod simulation;

use std::sync::LazyLock;
use std::time::Duration;

use super::*;

/// An initial sequence number for tests.
fn isn(seq: u32) -> Isn {
    Isn { seq: Seq(seq), timestamp: 1000 }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The stream repeats after a prime number of bytes, so that no segment size divides it.
const PERIOD: usize = 65521;
static STREAM: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..2 * PERIOD as u64).map(|at| ((at % PERIOD as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect());

/// The bytes of the stream from an offset on, 65521 at most.
fn content(offset: u64, len: usize) -> &'static [u8] {
    let at = (offset % PERIOD as u64) as usize;
    &STREAM[at..at + len]
}

/// The bytes of the segments that a NIC makes of an outgoing one, the checksum missing.
fn segments(out: &Outgoing) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut at = out.payload.start;
    loop {
        let end = out.payload.end.min(at + u64::from(out.mss));
        let mut header = TcpHeader { seq: out.header.seq + (at - out.payload.start), ..out.header };
        if end < out.payload.end {
            header.flags -= Flags::PSH;
        }
        let mut bytes = vec![0; header.len() + (end - at) as usize];
        let len = header.emit(&mut bytes);
        bytes[len..].copy_from_slice(content(at, (end - at) as usize));
        all.push(bytes);
        at = end;
        if at == out.payload.end {
            return all;
        }
    }
}
