//! Wrong arguments and hopeless wishes: a sentence that says what is wrong and what to do, a status that scripts can tell apart (2: the arguments
//! are wrong; 1: it failed), and nothing on standard output that a program could take for a report.

use std::os::unix::fs::PermissionsExt;

use pagewire_tests::command::{Ended, SLIRP, as_nobody, pagewire, run, send};
use pagewire_tests::content;

const TO: &str = "udp://10.0.2.2:9000";

/// Sends a small file that is there, with something wrong.
fn refused(nic: &str, to: &str, options: &str, code: i32, says: &[&str]) -> Ended {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 100);
    let ended = run(send(&path, nic, to, options)).with_code(code);
    ended.complains_of(says);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.all());
    ended
}

/// As [`refused`], before anything began.
fn wrong(nic: &str, to: &str, options: &str, code: i32, says: &[&str]) {
    let ended = refused(nic, to, options, code, says);
    assert_eq!(ended.stdout, "", "no report of what has not begun: {}", ended.all());
}

#[test]
fn a_missing_file_is_named() {
    let ended = run(send("/nowhere/film.mkv", "sim:e1000", TO, SLIRP)).with_code(1);
    ended.complains_of(&["pagewire: /nowhere/film.mkv: No such file"]);
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_directory_is_refused_with_the_way_to_send_one() {
    let directory = content::directory();
    let ended = run(send(directory.path(), "sim:e1000", TO, SLIRP)).with_code(1);
    ended.complains_of(&[&format!("{} is a directory", directory.path().display()), "tar -c", "pagewire send -"]);
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_file_that_this_user_may_not_read_is_refused() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 100);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("own file");
    let ended = run(as_nobody(directory.path(), &send(&path, "sim:e1000", TO, SLIRP))).with_code(1);
    ended.complains_of(&[&path.display().to_string(), "Permission denied", "the right to read it"]);
}

#[test]
fn a_malformed_target_shows_the_grammar() {
    for (target, says) in [
        ("10.0.2.2:9000", "does not begin with udp:// or tcp://"),
        ("udp://10.0.2.2", "the port is missing"),
        ("udp://:9000", "the host is missing"),
        ("udp://10.0.2.2:0", "port 0"),
        ("udp://10.0.2.2:65536", "above 65535"),
        ("udp://10.0.2.2:http", "not a number"),
        ("udp://fec0::2:9000", "in brackets"),
        ("http://10.0.2.2:80", "not a way to send"),
    ] {
        wrong("sim:e1000", target, SLIRP, 2, &[says, "udp://HOST:PORT", target]);
    }
}

#[test]
fn a_malformed_own_address_shows_the_grammar() {
    for (address, says) in
        [("10.0.2.15", "ADDR/PREFIX"), ("10.0.2.15/33", "ADDR/PREFIX"), ("10.0.2/24", "ADDR/PREFIX"), ("nic/24", "ADDR/PREFIX")]
    {
        wrong("sim:e1000", TO, &format!("--ip {address}"), 2, &[says, address]);
    }
}

#[test]
fn a_malformed_nic_shows_the_grammar() {
    for (nic, says) in [
        ("e1000", "no bus in front of a colon"),
        ("sim:rtl8139", "no device model \"rtl8139\" (there is e1000, virtio-net)"),
        ("sim:", "no device model"),
        ("usb:1", "no bus \"usb\""),
        ("sim:e1000,wire=radio", "no wire \"radio\""),
        ("sim:e1000,tx-ring=79", "80 to 4096"),
        ("sim:e1000,tx-ring=4104", "80 to 4096"),
        ("sim:e1000,mac=01:00:5e:00:00:01", "cannot be a NIC's own address"),
        ("sim:e1000,colour=red", "no option"),
    ] {
        wrong(nic, TO, SLIRP, 2, &[says, "write sim:e1000|virtio-net["]);
    }
}

#[test]
fn impossible_quantities_are_refused_with_what_to_write() {
    for (options, says) in [
        ("--rate 0Mbit", "at a rate of 0 nothing is ever sent"),
        ("--rate 0", "is not a rate"),
        ("--rate 200", "no unit"),
        ("--rate fast", "is not a rate"),
        ("--rate=-5Mbit", "negative"),
        ("--length lots", "is not a size"),
        ("--offset 1XB", "is not a size"),
        ("--burst 0", "1..=256"),
        ("--burst 257", "1..=256"),
        ("--source-port 0", "1..=65535"),
        ("--vlan 4095", "1..=4094"),
        ("--mtu 65536", "65535"),
        ("--stability hope", "lease"),
        ("--framing json", "offset"),
    ] {
        wrong("sim:e1000", TO, &format!("{SLIRP} {options}"), 2, &[says]);
    }
    wrong("sim:e1000", TO, "--ip 10.0.2.15/24 --station 52:54:00", 2, &["52:54:00", "six hexadecimal bytes"]);
}

#[test]
fn a_pci_device_that_is_not_there_is_named() {
    wrong("pci:0fff:1f:1f.7", TO, SLIRP, 1, &["there is no PCI device 0fff:1f:1f.7", "pagewire nics"]);
    wrong("pci:eth0", TO, SLIRP, 2, &["\"eth0\" is not a PCI address"]);
}

#[test]
fn an_mtu_that_is_too_small_or_too_large_names_the_range() {
    wrong("sim:e1000", TO, &format!("{SLIRP} --mtu 67"), 1, &["an MTU of 67", "68", "16110"]);
    wrong("sim:e1000", TO, &format!("{SLIRP} --mtu 16111"), 1, &["an MTU of 16111", "68", "16110"]);
    wrong("sim:e1000", "udp://[fec0::2]:9000", "--ip fec0::15/64 --mtu 1279", 1, &["an MTU of 1279", "1280", "16110", "IPv6"]);
}

#[test]
fn a_target_that_cannot_be_reached_says_what_is_missing() {
    for (to, options, says) in [
        ("udp://198.51.100.7:9000", "--ip 10.0.2.15/24", "--gateway"),
        ("udp://10.0.2.15:9000", "--ip 10.0.2.15/24", "own address"),
        ("udp://[fec0::2]:9000", "--ip 10.0.2.15/24", "not an IPv4 address"),
        ("udp://10.0.2.0:9000", "--ip 10.0.2.15/24", "stands for the network itself"),
        ("udp://127.0.0.1:9000", "--ip 10.0.2.15/24", "loopback"),
        ("udp://198.51.100.7:9000", "--ip 10.0.2.15/24 --gateway 10.0.3.1", "a router in this network"),
        ("udp://no-such-host.invalid:9000", "--ip 10.0.2.15/24", "no-such-host.invalid"),
    ] {
        wrong("sim:e1000", to, options, 1, &[says]);
    }
}

#[test]
fn a_station_that_does_not_answer_arp_is_named() {
    let ended = refused("sim:e1000", "udp://10.0.2.99:9000", "--ip 10.0.2.15/24", 1, &["the station 10.0.2.99 did not answer ARP"]);
    let figures = ended.stopped(1);
    assert_eq!((figures.number("bytes"), figures.number("frames")), (0, 0));
}

#[test]
fn a_gateway_that_does_not_answer_arp_is_named_and_not_the_target() {
    let options = "--ip 10.0.2.15/24 --gateway 10.0.2.77";
    let ended = refused("sim:e1000", "udp://198.51.100.7:9000", options, 1, &["the gateway 10.0.2.77 did not answer ARP"]);
    assert!(!ended.stderr.contains("198.51.100.7"), "{}", ended.all());
}

#[test]
fn what_a_stream_has_not_is_refused() {
    for option in ["--rate 10Mbit", "--framing offset"] {
        wrong("sim:e1000", "tcp://10.0.2.2:80", &format!("{SLIRP} {option}"), 1, &["--rate and --framing are for udp://"]);
    }
}

#[test]
fn what_is_not_there_yet_says_so() {
    wrong("sim:e1000e", TO, SLIRP, 2, &["no driver for e1000e yet"]);
}

#[test]
fn a_capture_that_cannot_be_written_is_named() {
    wrong("sim:e1000,pcap=/nowhere/frames.pcap", TO, SLIRP, 1, &["/nowhere/frames.pcap"]);
}

#[test]
fn a_socket_path_that_is_taken_or_impossible_is_named() {
    let directory = content::directory();
    let taken = directory.path().join("taken");
    let _owner = std::os::unix::net::UnixDatagram::bind(&taken).expect("a socket");
    let nic = |local: &str| format!("sim:e1000,wire=dgram:{local}:{}", directory.path().join("peer").display());
    let taken = taken.display().to_string();
    wrong(&nic(&taken), TO, SLIRP, 1, &[&taken, "is in use"]);
    wrong(&nic("/nowhere/socket"), TO, SLIRP, 1, &["/nowhere/socket"]);
}

#[test]
fn a_window_budget_of_nothing_is_no_reason_to_panic() {
    let ended = refused("sim:e1000", TO, &format!("{SLIRP} --window-budget 0"), 0, &[]);
    assert_eq!(ended.json()["bytes_copied"], 100);
}

#[test]
fn missing_arguments_and_commands_show_the_usage() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 100);
    run(pagewire(["send".as_ref(), path.as_os_str()])).with_code(2).complains_of(&["--nic", "--to", "--ip", "Usage: pagewire send"]);
    run(pagewire(["fly"])).with_code(2).complains_of(&["fly"]);
    run(pagewire([""; 0])).with_code(2).complains_of(&["Usage: pagewire"]);
}

#[test]
fn every_help_has_examples() {
    for command in ["send", "receive", "nics", "demo"] {
        let ended = run(pagewire([command, "--help"])).with_code(0);
        assert!(ended.stdout.contains("Examples:") && ended.stdout.contains(&format!("pagewire {command}")), "{}", ended.all());
    }
    let ended = run(pagewire(["--help"])).with_code(0);
    for command in ["send", "receive", "nics", "demo"] {
        assert!(ended.stdout.contains(command), "{}", ended.all());
    }
}

#[test]
fn the_list_of_nics_has_the_simulated_one() {
    let list = run(pagewire(["nics", "--json"])).with_code(0).json();
    let simulated = list.as_array().expect("a list").iter().find(|row| row["address"] == "sim:e1000").expect("the rig's");
    assert_eq!(simulated["usable"], true);
    let table = run(pagewire(["nics"])).with_code(0);
    assert!(table.stdout.contains("sim:e1000") && table.stdout.contains("82540EM"), "{}", table.all());
}
