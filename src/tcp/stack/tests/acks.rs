//! ACKs that come together: what stands between them is not passed over, and the last one of them counts.

use etherparse::TcpHeader;

use super::bench::{file, shared};
use super::client::{connected, poll, segment, segment_with, sent};
use super::*;
use crate::file::source::Available;
use crate::tcp::{SocketError, TcpConfig, TcpError};

/// The payload of a segment with timestamps, and how many of them are under way.
const SEGMENT: u64 = 1448;
const FLIGHT: u32 = 10;
/// The clock of the client.
const STAMP: u32 = 100;

/// What became of segments that arrived together.
struct Outcome {
    acknowledged: u64,
    /// Segments of payload that went out for them, and of none.
    data: usize,
    bare: usize,
    state: Result<State, SocketError>,
    error: Option<SocketError>,
    read: Vec<u8>,
}

/// Of a client that has ten segments under way, and gets so many in all. `frames` makes segments, from the number behind so many of them.
fn outcome(all: u32, frames: impl FnOnce(&dyn Fn(u32) -> u32) -> Vec<Vec<u8>>) -> Outcome {
    let len = u64::from(all) * SEGMENT;
    let (path, _) = file(len as usize);
    let file = shared(&path, Stability::Auto);
    let (mut bench, socket, first) = connected(64, TcpConfig { pacing: false, ..TcpConfig::default() }, Some(STAMP));
    socket.sendfile(&mut bench.stack, &file, 0..len).unwrap();
    poll(&mut bench);
    assert_eq!(sent(&mut bench).len(), FLIGHT as usize);
    poll(&mut bench);
    for frame in frames(&|segments| first.wrapping_add(segments * SEGMENT as u32)) {
        bench.inject(&frame);
    }
    for _ in 0..3 {
        poll(&mut bench);
    }
    let (data, bare): (Vec<_>, Vec<_>) = sent(&mut bench).into_iter().partition(|(checked, _)| !checked.payload.is_empty());
    let mut read = [0; 16];
    let len = if let Ok(Available::Bytes(len)) = socket.recv(&mut bench.stack, &mut read) { len } else { 0 };
    bench.assert_clean();
    Outcome {
        acknowledged: socket.acknowledged(&bench.stack).unwrap(),
        data: data.len(),
        bare: bare.len(),
        state: socket.state(&bench.stack),
        error: socket.error(&bench.stack),
        read: read[..len].to_vec(),
    }
}

/// An ACK of so many segments, with a stamp, and changed.
fn ack(number: u32, stamp: u32, change: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    segment(number, Some(stamp), change)
}

#[test]
fn the_last_of_those_that_go_on_counts_and_no_other_one() {
    type Second = fn(&dyn Fn(u32) -> u32) -> Vec<u8>;
    let second: [(&str, Second, u64, usize); 9] = [
        ("more", |at| ack(at(6), STAMP + 2, |_| ()), 6, 0),
        ("more at the same time", |at| ack(at(6), STAMP + 1, |_| ()), 6, 0),
        ("the same again", |at| ack(at(4), STAMP + 1, |_| ()), 4, 0),
        ("less", |at| ack(at(2), STAMP + 1, |_| ()), 4, 0),
        ("what was never sent", |at| ack(at(FLIGHT) + 1, STAMP + 1, |_| ()), 4, 1),
        ("an older time", |at| ack(at(6), STAMP, |_| ()), 4, 1),
        ("no time", |at| segment(at(6), None, |_| ()), 4, 0),
        ("an older number", |at| ack(at(6), STAMP + 1, |header| header.sequence_number -= 1), 4, 1),
        ("no ACK", |at| ack(at(6), STAMP + 1, |header| header.ack = false), 4, 0),
    ];
    for (what, second, segments, challenges) in second {
        let Outcome { acknowledged, bare, .. } =
            outcome(FLIGHT, |at| vec![ack(at(3), STAMP, |_| ()), ack(at(4), STAMP + 1, |_| ()), second(at)]);
        assert_eq!((acknowledged, bare), (segments * SEGMENT, challenges), "{what}");
        // Whatever it was, the next one is heard.
        let Outcome { acknowledged, .. } =
            outcome(FLIGHT, |at| vec![ack(at(3), STAMP, |_| ()), ack(at(4), STAMP + 1, |_| ()), second(at), ack(at(9), STAMP + 3, |_| ())]);
        assert_eq!(acknowledged, 9 * SEGMENT, "{what}");
    }
}

#[test]
fn what_is_damaged_does_not_count() {
    for at_byte in 26..66 {
        let Outcome { acknowledged, .. } = outcome(FLIGHT, |at| {
            let mut damaged = ack(at(6), STAMP + 1, |_| ());
            damaged[at_byte] ^= 0x10;
            vec![ack(at(4), STAMP + 1, |_| ()), damaged]
        });
        assert_eq!(acknowledged, 4 * SEGMENT, "byte {at_byte}");
    }
}

#[test]
fn what_says_more_than_an_ack_is_heard_in_its_turn() {
    let [first, later] = [STAMP, STAMP + 1];
    let with_data = outcome(FLIGHT, |at| {
        vec![ack(at(4), first, |_| ()), segment_with(at(6), Some(later), |_| (), b"data"), {
            ack(at(7), later, |header| header.sequence_number += 4)
        }]
    });
    assert_eq!((with_data.acknowledged, &with_data.read[..]), (7 * SEGMENT, &b"data"[..]));
    let with_fin = outcome(FLIGHT, |at| vec![ack(at(4), first, |_| ()), ack(at(6), later, |header| header.fin = true)]);
    assert_eq!((with_fin.acknowledged, with_fin.state), (6 * SEGMENT, Ok(State::CloseWait)));
    let reset = outcome(FLIGHT, |at| vec![ack(at(4), first, |_| ()), ack(at(6), later, |header| header.rst = true)]);
    assert_eq!((reset.acknowledged, reset.error), (4 * SEGMENT, Some(SocketError::Tcp(TcpError::Reset))));
    // One with another number is asked back, and does not end it.
    let forged = outcome(FLIGHT, |at| {
        vec![ack(at(4), first, |_| ()), ack(at(6), later, |header| (header.rst, header.sequence_number) = (true, 2000))]
    });
    assert_eq!((forged.acknowledged, forged.state, forged.bare), (4 * SEGMENT, Ok(State::Established), 1));
}

#[test]
fn the_window_is_that_of_the_last_one() {
    let windows = |first: u16, last: u16| {
        outcome(100, |at| {
            let [first, last] =
                [(4, first), (10, last)].map(|(segments, size)| ack(at(segments), STAMP, |header| header.window_size = size));
            vec![first, last]
        })
    };
    let closed = windows(65_535, 0);
    assert_eq!((closed.acknowledged, closed.data), (10 * SEGMENT, 0));
    let open = windows(0, 65_535);
    assert!(open.acknowledged == 10 * SEGMENT && open.data > 10, "{} segments", open.data);
    let opened = outcome(100, |at| {
        // The same number with another window is an update, and not passed over.
        [0, 3000].map(|size| ack(at(10), STAMP, |header| header.window_size = size)).to_vec()
    });
    assert_eq!(opened.data, 2);
}
