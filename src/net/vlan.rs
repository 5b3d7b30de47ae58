//! 802.1Q tags in the bytes of a frame: for a NIC that does not insert and strip them.

use smoltcp::wire::ETHERNET_HEADER_LEN;

/// What a tag begins with, in place of the type that then follows it (IEEE 802.1Q 9.5).
const TAG_TYPE: [u8; 2] = [0x81, 0x00];
/// The bytes of a tag: its type, and the tag control information.
pub(crate) const TAG_LEN: usize = 4;
/// Where the tag stands: behind the two addresses.
const PLACE: usize = 12;

/// The bytes of a tag with this control information.
pub(crate) fn tag_bytes(tag: u16) -> [u8; TAG_LEN] {
    let [high, low] = tag.to_be_bytes();
    [TAG_TYPE[0], TAG_TYPE[1], high, low]
}

/// Makes the tag of a whole frame part of its bytes.
///
/// # Panics
/// When the frame is shorter than two addresses.
pub(crate) fn insert(frame: &mut Vec<u8>, tag: u16) {
    frame.splice(PLACE..PLACE, tag_bytes(tag));
}

/// Whether a frame has a tag.
#[inline]
pub(crate) fn is_tagged(frame: &[u8]) -> bool {
    frame.len() >= ETHERNET_HEADER_LEN + TAG_LEN && frame[PLACE..PLACE + 2] == TAG_TYPE
}

/// Takes the outer tag out of a frame, if it has one; returns its control information.
pub(crate) fn take(frame: &mut Vec<u8>) -> Option<u16> {
    if !is_tagged(frame) {
        return None;
    }
    let tag = u16::from_be_bytes([frame[PLACE + 2], frame[PLACE + 3]]);
    frame.drain(PLACE..PLACE + TAG_LEN);
    Some(tag)
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, VlanId};

    use super::*;

    #[test]
    fn a_tag_is_what_another_parser_takes_it_for_and_comes_out_again() {
        let builder = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let (mut plain, mut tagged) = (Vec::new(), Vec::new());
        builder().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut plain, b"payload").unwrap();
        let vlan = builder().single_vlan(VlanId::try_new(0x123).unwrap());
        vlan.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut tagged, b"payload").unwrap();
        let mut frame = plain.clone();
        insert(&mut frame, 0x123);
        assert_eq!(frame, tagged);
        assert_eq!((take(&mut frame), &frame), (Some(0x123), &plain));
        assert_eq!((take(&mut frame), &frame), (None, &plain));
    }

    #[test]
    fn a_frame_that_ends_in_its_tag_has_none() {
        let mut frame = [&[2; 12][..], &tag_bytes(5), &[0]].concat();
        assert_eq!((take(&mut frame), frame.len()), (None, 17));
    }
}
