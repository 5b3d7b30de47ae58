//! What a device on the rig reads and writes.

mod raw_e1000;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use hal::{Access, DmaError, Mapping, SharedMemory};
use pagewire_hw_sim::wire::check;
use raw_e1000::{RX_DESCRIPTORS, RawE1000, eventually, local_rig, tso_header};

const LONG: Duration = Duration::from_secs(10);

/// A file of `len` bytes that differ from place to place.
fn file(len: usize) -> (File, Vec<u8>) {
    let content: Vec<u8> = (0..len as u32 / 4 + 1).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).take(len).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    (file, content)
}

/// What the device sends when it is told to gather `len` bytes at `offset` of a mapping.
fn gathered(card: &mut RawE1000, wire: &pagewire_hw_sim::wire::Wire, mapping: &Mapping, offset: u64, len: usize) -> Vec<u8> {
    card.post(&[(mapping.iova() + offset, len)]);
    card.ring().unwrap();
    wire.receive(LONG).expect("the frame")
}

#[test]
fn a_segmentation_packet_is_gathered_from_a_file_at_odd_offsets() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let (file, content) = file(1 << 20);
    let window = card.space.map_file(file.as_fd(), 0..1 << 20).unwrap();
    assert_eq!(window.len(), 1 << 20);

    let pieces = [(4197, 5001), (65_545, 5239), (1_048_575, 1)];
    let expected: Vec<u8> = pieces.iter().flat_map(|&(at, len)| content[at..at + len].to_vec()).collect();
    card.post_tso(&tso_header(), &pieces.map(|(at, len)| (window.iova() + at as u64, len)), 1448);
    card.ring().unwrap();
    assert!(card.done());

    let mut got = Vec::new();
    while got.len() < expected.len() {
        let frame = wire.receive(LONG).expect("a segment");
        let checked = check(&frame).unwrap();
        assert_eq!(checked.tcp.unwrap().sequence, 0x0001_b207 + got.len() as u32);
        got.extend_from_slice(&frame[checked.payload]);
    }
    assert_eq!(got, expected);
    card.space.unmap(window).unwrap();
}

#[test]
fn three_hundred_mappings_in_turn_use_the_slots_again() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let free = card.space.limits().maps;
    for round in 0..300 {
        let (file, content) = file(8192 + 4 * round);
        let window = card.space.map_file(file.as_fd(), 0..u64::MAX).unwrap();
        assert_eq!((window.len(), card.space.limits().maps), (8192, free - 1));
        assert_eq!(gathered(&mut card, &wire, &window, 4 * round as u64, 700), content[4 * round..4 * round + 700]);
        card.space.unmap(window).unwrap();
    }
    assert_eq!(card.space.limits().maps, free);
}

#[test]
fn one_file_can_be_mapped_several_times() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let (file, content) = file(3 * 4096);
    let windows: Vec<Mapping> = (0..3).map(|_| card.space.map_file(file.as_fd(), 0..3 * 4096).unwrap()).collect();
    for window in &windows {
        assert_eq!(gathered(&mut card, &wire, window, 4095, 1000), content[4095..5095]);
    }
    let mut windows = windows.into_iter();
    card.space.unmap(windows.next().unwrap()).unwrap();
    assert_eq!(gathered(&mut card, &wire, &windows.next().unwrap(), 1, 100), content[1..101]);
}

#[test]
fn a_mapping_reads_the_file_although_it_was_removed_and_closed() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a name, with a comma");
    std::fs::write(&path, [7; 8192]).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let window = card.space.map_file(file.as_fd(), 0..8192).unwrap();
    drop(file);
    assert_eq!(gathered(&mut card, &wire, &window, 4000, 200), [7; 200]);
}

#[test]
fn a_write_to_the_file_is_seen_through_the_mapping() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let (file, _) = file(4096);
    let window = card.space.map_file(file.as_fd(), 0..4096).unwrap();
    file.write_all_at(&[0xee; 100], 1000).unwrap();
    assert_eq!(gathered(&mut card, &wire, &window, 1000, 100), [0xee; 100]);
}

#[test]
fn a_device_that_is_told_to_write_into_a_file_does_not_change_it() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let (file, content) = file(4096 * 4);
    let window = card.space.map_file(file.as_fd(), 0..4096 * 4).unwrap();
    let memory = SharedMemory::new("buffers", 2048).unwrap();
    let buffer = card.space.map_memory(&memory, Access::ReadWrite).unwrap();

    let mut addresses = [buffer.iova(); RX_DESCRIPTORS as usize];
    addresses[0] = window.iova() + 2048;
    card.receive_into(&addresses);
    for byte in [1, 2] {
        wire.send(&[byte; 600]).unwrap();
    }
    // The receiver of this model starts 1 s after it was enabled; frames wait for it.
    eventually("the second frame", || card.received(1));
    assert!(card.received(0));
    let mut got = [0; 600];
    memory.read_bytes(0, &mut got);
    assert_eq!(got, [2; 600]);

    let mut now = vec![0; content.len()];
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, content);
}

#[test]
fn memory_that_is_mapped_for_reading_is_not_written() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let memory = SharedMemory::with_huge_pages("buffers", 4096).unwrap();
    let buffer = card.space.map_memory(&memory, Access::Read).unwrap();
    card.receive_into(&[buffer.iova(); RX_DESCRIPTORS as usize]);
    wire.send(&[1; 600]).unwrap();
    eventually("the frame", || card.received(0));
    assert_eq!(memory.read::<u64>(0), 0);
    assert_eq!(gathered(&mut card, &wire, &buffer, 0, 64), [0; 64]);
}

#[test]
fn what_cannot_be_mapped_is_refused_with_the_reason() {
    let (rig, _wire) = local_rig();
    let device = rig.device().unwrap();
    let space = device.dma();
    let (small, _) = file(4095);
    let (large, _) = file(8192);
    let refused = |file: &File, range| match space.map_file(file.as_fd(), range) {
        Err(DmaError::Unsupported(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(&small, 0..4095).contains("4095 bytes"));
    assert!(refused(&large, 0..4095).contains("whole page"));
    assert!(refused(&large, 4096..8192).contains("from their beginning"));
    assert!(refused(&File::open("/").unwrap(), 0..4096).contains("regular"));
    // A range beyond the file maps what there is.
    assert_eq!(space.map_file(large.as_fd(), 0..1 << 40).unwrap().len(), 8192);

    let stranger = Mapping::new(hal::segment::Domain::new(), 1 << 32, 8192);
    assert!(matches!(space.unmap(stranger), Err(DmaError::Unmap { .. })));
}

#[test]
fn the_slots_and_the_bytes_end_with_an_error_that_says_so() {
    let (rig, _wire) = local_rig();
    let space = rig.device().unwrap().dma();
    let (file, _) = file(4096);
    let mappings: Vec<Mapping> = (0..256).map(|_| space.map_file(file.as_fd(), 0..4096).unwrap()).collect();
    assert_eq!(space.limits().maps, 0);
    let error = space.map_file(file.as_fd(), 0..4096).unwrap_err();
    assert!(matches!(&error, DmaError::Full { reason, .. } if reason.contains("256")), "{error}");
    let range = &space.limits().ranges[0];
    assert!(mappings.iter().all(|mapping| range.contains(&mapping.iova()) && range.contains(&(mapping.iova() + mapping.len() - 1))));
    for mapping in mappings.into_iter().rev() {
        space.unmap(mapping).unwrap();
    }
    assert_eq!(space.limits().maps, 256);

    // A sparse file has any length.
    file.set_len(space.limits().bytes).unwrap();
    let all = space.map_file(file.as_fd(), 0..u64::MAX).unwrap();
    assert_eq!(all.len(), space.limits().bytes);
    assert!(matches!(space.map_file(file.as_fd(), 0..4096), Err(DmaError::Full { .. })));
    space.unmap(all).unwrap();
}
