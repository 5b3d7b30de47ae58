//! What a send costs in a guest, over the kernel's VFIO, in instructions: user and kernel, everything included.
//!
//! ```text
//! cargo bench --bench guest            a table
//! cargo bench --bench guest -- --json  one line of JSON
//! ```
//! The file is sent several times over one port; what counts are the passes after the first, whose windows are mapped. A socket of this program is
//! at the other end: where nobody listens, every datagram would bring an ICMP message back.

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

/// The most instructions for 1024 bytes.
const TARGET: f64 = 150.0;
/// Large enough that opening it does not count.
const SIZE: usize = 64 << 20;

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    let port = socket.local_addr().expect("its address").port();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&vec![0x5a; SIZE]).expect("room for it");
    let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["vm", "--icount", "--", "send"])
        .arg(file.path())
        .args(["--repeat", "3", "--json", "--nic", "pci:0000:00:02.0", "--ip", "10.0.2.15/24", "--to", &format!("udp://10.0.2.2:{port}")])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    let (total, cost) = (&figures["total"], &figures["after_first"]);
    assert_eq!((&total["bytes_copied"], &total["stopped"]), (&0.into(), &"complete".into()), "{total}");
    let figure = |name: &str| cost[name].as_f64().unwrap_or_else(|| panic!("no {name} in {cost}"));
    if json {
        println!("{cost}");
    } else {
        println!("instructions a KiB, UDP datagrams of 1472 bytes from cached windows");
        for (what, name) in [("in all", "ns_per_kib"), ("of the process", "cpu_ns_per_kib"), ("in the send loop", "busy_ns_per_kib")] {
            println!("{what:<20} {:>8.1}", figure(name));
        }
        println!("{:<20} {TARGET:>8.1}", "target");
    }
    assert!(figure("ns_per_kib") <= TARGET, "the target was missed");
}
