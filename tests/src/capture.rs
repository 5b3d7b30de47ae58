//! Captures, as others read them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use hw_sim::wire::check::{Checked, Protocol};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

use crate::tool;

/// The frames of a capture, in order.
///
/// # Panics
/// When it is no capture of whole Ethernet frames.
pub fn frames(path: &Path) -> Vec<Vec<u8>> {
    let open = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = PcapReader::new(BufReader::new(open)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(reader.header().datalink, DataLink::ETHERNET);
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap_or_else(|error| panic!("{} after {} frames: {error}", path.display(), frames.len()));
        assert_eq!(packet.orig_len as usize, packet.data.len(), "frame {} was cut off", frames.len());
        frames.push(packet.data.into_owned());
    }
    frames
}

/// The UDP frames of a capture, each checked with all its checksums, in order.
///
/// # Panics
/// When one is wrong.
pub fn datagrams(path: &Path) -> Vec<(Checked, Vec<u8>)> {
    let frames = frames(path).into_iter().enumerate().map(|(number, frame)| {
        let checked = hw_sim::wire::check(&frame).unwrap_or_else(|error| panic!("frame {number} of {}: {error}", path.display()));
        (checked, frame)
    });
    frames.filter(|(checked, _)| checked.protocol == Protocol::Udp).collect()
}

/// What the datagrams of a capture hold, behind each other.
///
/// # Panics
/// When a frame is wrong.
pub fn payload(path: &Path) -> Vec<u8> {
    datagrams(path).into_iter().flat_map(|(checked, frame)| frame[checked.payload].to_vec()).collect()
}

/// What tshark finds out about each frame of a capture that `filter` (in Wireshark's language) lets through: the lines of `fields`, which tabs separate.
/// It verifies all checksums, and takes what goes to or from the UDP `ports` for data.
///
/// # Panics
/// When tshark is missing and cannot be installed, or fails.
pub fn tshark(capture: &Path, ports: &[u16], filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new(tool("tshark", "tshark"));
    command.arg("-n").arg("-r").arg(capture);
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    // Otherwise random bytes look like this and that protocol to it.
    command.args(ports.iter().flat_map(|port| ["-d".to_owned(), format!("udp.port=={port},data")]));
    command.args(["-Y", filter, "-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    assert!(!complaint.contains("cut short"), "{command:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
