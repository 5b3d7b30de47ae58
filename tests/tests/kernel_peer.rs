//! A TAP wire to the Linux kernel in a network namespace of the test's own: ARP, neighbour discovery and ping with a real peer.

use std::path::Path;
use std::process::Command;

use pagewire_tests::command::{Ended, Figures, as_nobody, pagewire, run, send, start};
use pagewire_tests::namespace::Namespace;
use pagewire_tests::{content, tool, wait_for};

/// The NICs. The kernel takes partial checksums from virtio-net on such a wire, so all of them gather.
const NICS: [&str; 3] = ["sim:e1000", "sim:virtio-net", "sim:virtio-net,packed=on"];

/// Receives in the namespace what is sent there, while the kernel pings the NIC. What the receiver reports.
fn arrives(nic: &str, target: &str, own: &str, addresses: &[&str]) -> Figures {
    let (ip, ping) = (tool("ip", "iproute2"), tool("ping", "iputils-ping"));
    let network = Namespace::new(addresses);
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 2_000_001);
    let output = directory.path().join("received");
    let size = sent.len().to_string();
    let mut receiver = pagewire(["receive", target, "--json", "--framing", "offset", "--idle", "20", "--size", &size, "-o"]);
    receiver.arg(&output);
    let receiver = start(network.inside(&receiver));
    wait_for("the receiver to listen", || receiver.complaints().contains("listening at").then_some(()));

    let nic = format!("{nic},wire=tap:{}", Namespace::TAP);
    let options = format!("--ip {own} --framing offset --rate 4Mbit");
    let mut sender = start(network.inside(&send(&path, &nic, target, &options)));
    let (address, _) = own.split_once('/').expect("a prefix");
    wait_for("the kernel to be asked by the NIC", || {
        assert!(!sender.has_ended(), "{}", sender.complaints());
        let neighbours = in_network(&network, &ip, &["neighbour", "show", address]).with_code(0);
        neighbours.stdout.contains("lladdr 52:54:00:").then_some(())
    });
    // The first ones wait in QEMU: the simulated receiver needs a second before it hears. The send takes four more.
    let pings = in_network(&network, &ping, &["-n", "-c", "3", "-i", "0.3", "-W", "5", address]).with_code(0);
    assert!(pings.stdout.contains("3 packets transmitted, 3 received, 0% packet loss"), "{}", pings.all());
    assert!(!sender.has_ended(), "the pings were during the send");

    let figures = sender.wait().sent();
    figures.add_up();
    assert_eq!(figures.copied_because(), [("partial-last-page".to_owned(), sent.len() as u64 % 4096)], "{nic}");
    let received = receiver.wait().stopped(0);
    content::assert_same(&std::fs::read(output).expect("the received file"), &sent);
    assert_eq!(received.0["gaps"], serde_json::json!([]));
    assert_eq!(received.text("sha256"), content::sha256(&sent));
    received
}

fn in_network(network: &Namespace, program: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments);
    run(network.inside(&command))
}

#[test]
fn the_kernel_answers_arp_receives_the_file_and_its_pings_are_answered() {
    for nic in NICS {
        let received = arrives(nic, "udp://10.9.0.1:9000", "10.9.0.2/24", &["10.9.0.1/24"]);
        assert!(received.text("sender").starts_with("10.9.0.2:"));
    }
}

#[test]
fn the_kernel_does_the_same_over_ipv6() {
    for nic in NICS {
        let received = arrives(nic, "udp://[fd00:9::1]:9000", "fd00:9::2/64", &["fd00:9::1/64"]);
        assert!(received.text("sender").starts_with("[fd00:9::2]:"));
    }
}

#[test]
fn a_tap_interface_that_is_not_there_is_named_with_the_command_that_makes_one() {
    let network = Namespace::new(&["10.9.0.1/24"]);
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 10);
    // Without privileges QEMU cannot make the interface itself, as it would for root.
    let plain = send(&path, "sim:e1000,wire=tap:nothere", "udp://10.9.0.1:9000", "--ip 10.9.0.2/24");
    let ended = run(network.inside(&as_nobody(directory.path(), &plain))).with_code(1);
    ended.complains_of(&["nothere", "ip tuntap add dev nothere mode tap"]);
}
