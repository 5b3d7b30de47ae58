//! What arrives in any order is read in the right one.

use proptest::prelude::*;

use super::*;

fn byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(byte).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64),
    Read(usize),
}

proptest! {
    #[test]
    fn every_byte_is_read_once_and_in_order(steps in proptest::collection::vec(prop_oneof![
        4 => (0..400u64, 0..120u64).prop_map(|(from, len)| Step::Insert(from, len)),
        1 => (0..300usize).prop_map(Step::Read),
    ], 1..80)) {
        let mut buffer = ReceiveBuffer::new();
        buffer.skip_syn();
        let mut here = std::collections::BTreeSet::new();
        let (mut next, mut read) = (1, 1);
        for step in steps {
            match step {
                Step::Insert(from, len) => {
                    // Around what is expected next, before and behind.
                    let start = (next + from).saturating_sub(100).max(1);
                    let inserted = buffer.insert(start, &bytes(start..start + len));
                    let known = here.len();
                    here.extend((start..start + len).filter(|at| *at >= next));
                    let before = next;
                    // With few ranges nothing is dropped.
                    while here.remove(&next) {
                        next += 1;
                    }
                    if buffer.next() != next {
                        // Something was dropped as there were too many ranges: forget it as well.
                        prop_assert!(known > 0);
                        return Ok(());
                    }
                    prop_assert_eq!(inserted.in_order, next - before);
                }
                Step::Read(most) => {
                    let mut out = vec![0; most];
                    let len = buffer.read(&mut out);
                    prop_assert_eq!(len as u64, (next - read).min(most as u64));
                    prop_assert_eq!(&out[..len], &bytes(read..read + len as u64)[..]);
                    read += len as u64;
                }
            }
            prop_assert_eq!(buffer.ready() as u64, next - read);
            let ranges: Vec<_> = buffer.ranges().collect();
            prop_assert!(ranges.iter().all(|range| range.start > next && range.start < range.end));
            let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(total, here.len() as u64);
        }
    }
}

#[test]
fn too_many_ranges_are_dropped_and_come_again() {
    let mut buffer = ReceiveBuffer::new();
    buffer.skip_syn();
    for hole in 1..=20 {
        buffer.insert(hole * 10, &bytes(hole * 10..hole * 10 + 5));
    }
    assert_eq!(buffer.ranges().count(), 16);
    assert!(buffer.take_sack(Seq(0), 4).as_slice().len() == 4);
    // What comes in order is always taken.
    for start in 1..210 {
        buffer.insert(start, &bytes(start..start + 1));
    }
    assert_eq!((buffer.next(), buffer.ranges().count()), (210, 0));
    let mut out = [0; 300];
    assert_eq!(buffer.read(&mut out), 209);
    assert_eq!(out[..209], bytes(1..210));
    assert!(buffer.heap_bytes() <= 1024);
}

#[test]
fn a_duplicate_is_reported_once_and_before_everything_else() {
    let mut buffer = ReceiveBuffer::new();
    buffer.skip_syn();
    buffer.insert(1, &bytes(1..11));
    buffer.insert(21, &bytes(21..31));
    buffer.insert(21, &bytes(21..31));
    assert_eq!(buffer.take_sack(Seq(0), 3).as_slice(), [(Seq(21), Seq(31)), (Seq(21), Seq(31))]);
    assert_eq!(buffer.take_sack(Seq(0), 3).as_slice(), [(Seq(21), Seq(31))]);
}

#[test]
fn what_is_missing_takes_no_memory() {
    let mut buffer = ReceiveBuffer::new();
    buffer.skip_syn();
    buffer.insert(1 << 30, &bytes(0..100));
    assert!(buffer.heap_bytes() < 1024, "{} bytes for 100", buffer.heap_bytes());
    assert_eq!((buffer.next(), buffer.ready()), (1, 0));
}
