//! Checksums in software, for a NIC that does not fill them. The arithmetic of RFC 1071 is smoltcp's.

use hal::{Offload, OffloadFlags};
use smoltcp::wire::checksum;

/// Where the checksum is in a UDP header (RFC 768), in bytes.
const UDP_CHECKSUM: usize = 6;
/// Where the checksum is in a TCP header (RFC 9293 3.1), in bytes.
const TCP_CHECKSUM: usize = 16;
/// Where the checksum is in an IPv4 header (RFC 791 3.1), in bytes.
const IPV4_CHECKSUM: usize = 10;

/// Does to a whole copied frame what `work` asks a NIC for: fills the IPv4 and the UDP or TCP checksum.
///
/// As for a NIC, the UDP or TCP field holds the folded pseudo-header sum, not complemented, and the datagram ends where the frame ends
/// (zeros behind it change nothing). A computed UDP checksum of 0 becomes 0xffff, as 0 would mean that there is none (RFC 768). Tags and
/// segmentation are not done here.
///
/// # Panics
/// When a header that `work` names lies outside the frame.
pub fn finish_in_software(frame: &mut [u8], work: &Offload) {
    if work.flags.contains(OffloadFlags::IPV4_CHECKSUM) {
        fill_ipv4_header(frame, work.ip_start.into());
    }
    let datagram = usize::from(work.l4_start)..;
    if work.flags.contains(OffloadFlags::UDP_CHECKSUM) {
        let sum = !checksum::data(&frame[datagram]);
        put(frame, usize::from(work.l4_start) + UDP_CHECKSUM, if sum == 0 { 0xffff } else { sum });
    } else if work.flags.contains(OffloadFlags::TCP_CHECKSUM) {
        let sum = !checksum::data(&frame[datagram]);
        put(frame, usize::from(work.l4_start) + TCP_CHECKSUM, sum);
    }
}

/// Fills the checksum of the IPv4 header at `ip_start`, whatever was in the field; options are included.
///
/// # Panics
/// When the header passes the frame's end.
pub fn fill_ipv4_header(frame: &mut [u8], ip_start: usize) {
    put(frame, ip_start + IPV4_CHECKSUM, 0);
    let words = usize::from(frame[ip_start] & 0xf);
    let sum = !checksum::data(&frame[ip_start..ip_start + 4 * words]);
    put(frame, ip_start + IPV4_CHECKSUM, sum);
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as its section 1 has it, two bytes at a time.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_sum_of_the_rfc_s_example_is_the_rfc_s() {
        assert_eq!(checksum::data(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_longest_frame_of_ones_does_not_overflow_the_sum() {
        assert_eq!(checksum::data(&[0xff; 65535]), by_the_book(&[0xff; 65535]));
    }

    #[test]
    fn the_header_checksum_does_not_depend_on_what_was_in_its_field() {
        // The example of many textbooks, with the checksum b861.
        let words = [0x4500u16, 0x0073, 0, 0x4000, 0x4011, 0xdead, 0xc0a8, 0x0001, 0xc0a8, 0x00c7];
        let mut frame = words.map(u16::to_be_bytes).concat();
        fill_ipv4_header(&mut frame, 0);
        assert_eq!(frame[10..12], [0xb8, 0x61]);
    }

    #[test]
    fn a_udp_checksum_of_zero_goes_out_as_all_ones() {
        let mut frame = [0; 8];
        frame[0..2].copy_from_slice(&[0xff, 0xff]);
        let work = Offload { flags: OffloadFlags::UDP_CHECKSUM, ..Offload::NONE };
        finish_in_software(&mut frame, &work);
        assert_eq!(frame[6..8], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn the_sum_is_the_one_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum::data(&bytes), by_the_book(&bytes));
        }

        #[test]
        fn a_tcp_segment_sums_to_all_ones(mut frame in proptest::collection::vec(any::<u8>(), 20..200)) {
            let work = Offload { flags: OffloadFlags::TCP_CHECKSUM, ..Offload::NONE };
            let seed = u16::from_be_bytes([frame[16], frame[17]]);
            finish_in_software(&mut frame, &work);
            prop_assert_eq!(checksum::combine(&[checksum::data(&frame), seed]), 0xffff);
        }
    }
}
