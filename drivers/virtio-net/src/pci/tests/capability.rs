//! Which devices are taken, and where their registers are found.

use hal::virtio::VirtioTransport;

use super::device::{COMMON, Fake, LAYOUT, MSIX};

#[test]
fn what_is_not_a_modern_network_card_is_refused_with_what_is_needed() {
    let mut fake = Fake::new();
    fake.identity = (0x1af4, 0x1042);
    assert!(fake.refused().contains("not a virtio network card"));
    fake.identity = (0x1af4, 0x1000);
    assert!(fake.open().is_ok(), "a transitional device has both sides");
    fake.set(0x34, &[MSIX as u8]);
    assert!(fake.refused().contains("disable-legacy=on"));
    fake.set(0x06, &[0]);
    assert!(fake.refused().contains("VIRTIO 1.0"), "no capabilities at all");
}

#[test]
fn malformed_lists_of_capabilities_are_refused() {
    for (at, next, says) in
        [(0x51, 0x40, "comes back to 0x40"), (0x51, 0x50, "comes back to 0x50"), (0x34, 0x10, "into the header, to 0x10")]
    {
        let fake = Fake::new();
        fake.set(at, &[next]);
        assert!(fake.refused().contains(says), "{}", fake.refused());
    }
}

#[test]
fn a_capability_that_makes_no_sense_is_passed_over_for_the_next_one() {
    for (what, at, bytes, says) in [
        ("too short", 0x42, vec![15], "has 15 bytes"),
        ("in no BAR", 0x44, vec![6], "is for BAR 6"),
        ("in a BAR that is not there", 0x44, vec![2], "no usable BAR 2"),
        ("outside its BAR", 0x48, 0xfe0_u32.to_le_bytes().to_vec(), "0x3c bytes at 0xfe0 of BAR 4"),
        ("outside every BAR", 0x48, u32::MAX.to_le_bytes().to_vec(), "at 0xffffffff of BAR 4"),
        ("smaller than its registers", 0x4c, vec![55], "it needs 56"),
        ("of another kind", 0x43, vec![77], "registers"),
    ] {
        let fake = Fake::new();
        fake.set(at, &bytes);
        assert!(fake.refused().contains(says), "{what}: {}", fake.refused());
        // A second one of the kind is as good. At the end of the space, which has room for it.
        fake.set(MSIX + 1, &[0xf0]);
        fake.capability(0xf0, 0, 1, COMMON, 60);
        assert_eq!(fake.open().unwrap_or_else(|error| panic!("{what}: {error}")).queues().unwrap(), 3);
    }
    // The first of two good ones is taken.
    let fake = Fake::new();
    fake.set(MSIX + 1, &[0xf0]);
    fake.capability(0xf0, 0, 1, COMMON + 0x400, 60);
    assert_eq!(fake.open().unwrap().queues().unwrap(), 3);
    // One that would go beyond the space.
    fake.set(MSIX + 1, &[0xfc]);
    fake.set(0x40, &[0]);
    fake.set(0xfc, &[9, 0, 16, 1]);
    assert!(fake.refused().contains("end of configuration space"));
}

#[test]
fn doorbells_that_would_not_be_aligned_are_refused() {
    for multiplier in [1_u32, 3, 6, u32::MAX] {
        let fake = Fake::new();
        fake.set(0x80, &multiplier.to_le_bytes());
        assert!(fake.refused().contains("no even power of two"), "{multiplier}: {}", fake.refused());
    }
    let fake = Fake::new();
    fake.set(0x80, &[0; 4]);
    let mut transport = fake.open().unwrap();
    for index in 0..2 {
        transport.enable_queue(index, LAYOUT).unwrap().ring(index.into()).unwrap();
    }
    assert_eq!(fake.device().doorbells, [(0x800, 0), (0x800, 1)], "one doorbell for all");
}
