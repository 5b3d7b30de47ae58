//! Files of all sizes and parts of files, over QEMU's user network to `pagewire receive`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pagewire::send::COPY_BELOW;
use pagewire_tests::command::{Figures, SLIRP, SLIRP_BY_ARP, run, send};
use pagewire_tests::receiver::Receiver;
use pagewire_tests::{capture, content};

/// The file bytes of a full frame: an MTU of 1500 less 28 bytes of IPv4 and UDP headers.
const PAYLOAD: usize = 1472;
const PAGE: u64 = 4096;
/// The port that `send` sends from unless it is told otherwise.
const SOURCE_PORT: u16 = 49152;

/// Sends `file` to a receiver that waits for `expected`, and checks that it gets it.
fn arrives(directory: &Path, file: &Path, expected: &[u8], options: &str) -> Figures {
    let receiver = Receiver::start(directory, &format!("--size {} --idle 10", expected.len()));
    let figures = run(send(file, "sim:e1000", &receiver.target(), &format!("{SLIRP} {options}"))).sent();
    let (received, content) = receiver.whole();
    content::assert_same(&content, expected);
    assert_eq!(received.text("sha256"), content::sha256(expected));
    assert_eq!(received.text("stopped"), "complete");
    figures.add_up();
    assert_eq!(figures.number("bytes"), expected.len() as u64);
    figures
}

fn a_file_of(len: usize, options: &str) {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), len);
    let copied = if len < COPY_BELOW as usize { len as u64 } else { len as u64 % PAGE };
    for (gather, copied) in [("", copied), ("--copy-below 0", len as u64 % PAGE)] {
        let figures = arrives(directory.path(), &path, &sent, &format!("{options} {gather}"));
        assert_eq!(figures.number("frames"), len.div_ceil(PAYLOAD) as u64);
        assert_eq!(figures.number("bytes_copied"), copied, "only what is not worth a window, and the partial last page: {}", figures.0);
    }
}

#[test]
fn an_empty_file_is_sent_without_a_frame() {
    a_file_of(0, "");
}

#[test]
fn one_byte_arrives() {
    a_file_of(1, "");
}

#[test]
fn a_byte_less_than_a_page_arrives() {
    a_file_of(4095, "");
}

#[test]
fn exactly_a_page_arrives() {
    a_file_of(4096, "");
}

#[test]
fn a_byte_more_than_a_page_arrives() {
    a_file_of(4097, "");
}

#[test]
fn exactly_three_datagrams_arrive() {
    a_file_of(3 * PAYLOAD, "");
}

#[test]
fn a_mebibyte_and_a_byte_arrives() {
    a_file_of((1 << 20) + 1, "--rate 400Mbit");
}

#[test]
fn without_options_beyond_the_address_the_nic_finds_the_host_by_arp() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    let receiver = Receiver::start(directory.path(), "--size 100000 --idle 10");
    run(send(&path, "sim:e1000", &receiver.target(), SLIRP_BY_ARP)).sent();
    content::assert_same(&receiver.whole().1, &sent);
}

#[test]
fn a_hundred_megabytes_arrive_and_tshark_has_no_complaint_about_any_frame() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000_000);
    let pcap = directory.path().join("frames.pcap");
    let receiver = Receiver::start(directory.path(), "--framing offset --size 100MB --idle 10");
    let ports = [SOURCE_PORT, receiver.port];
    let nic = format!("sim:e1000,pcap={}", pcap.display());
    let figures = run(send(&path, &nic, &receiver.target(), &format!("{SLIRP} --framing offset --rate 400Mbit"))).sent();
    figures.add_up();
    assert_eq!((figures.number("bytes"), figures.number("bytes_copied")), (100_000_000, 100_000_000 % PAGE));
    let (received, content) = receiver.whole();
    content::assert_same(&content, &sent);
    assert_eq!(received.text("sha256"), content::sha256(&sent));

    let filter = "ip.checksum.status == 1 && udp.checksum.status == 1 && !_ws.malformed && !_ws.expert";
    assert_eq!(
        capture::tshark(&pcap, &ports, filter, &["frame.number"]).len() as u64,
        figures.number("frames"),
        "frames that tshark finds right"
    );
    let other = capture::tshark(&pcap, &ports, &format!("!({filter})"), &["frame.number", "frame.protocols", "_ws.expert.message"]);
    assert_eq!(other, [""; 0], "frames that it does not, or that are not the file's");
}

#[test]
fn the_payloads_that_tshark_reads_are_the_file() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_000);
    let pcap = directory.path().join("frames.pcap");
    let receiver = Receiver::start(directory.path(), "--size 200000 --idle 10");
    run(send(&path, &format!("sim:e1000,pcap={}", pcap.display()), &receiver.target(), SLIRP_BY_ARP)).sent();
    let port = receiver.port;
    receiver.whole();
    let lines = capture::tshark(&pcap, &[SOURCE_PORT, port], &format!("udp.dstport == {port}"), &["udp.payload"]);
    let digits: Vec<u8> = lines.iter().flat_map(|line| line.bytes()).filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("two digits a byte"))
        .collect();
    content::assert_same(&bytes, &sent);
}

#[test]
fn a_part_of_a_file_arrives_wherever_it_begins_and_ends() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 20_000);
    for (offset, length) in [(0, 1), (1, 4096), (4095, 2), (4096, 8192), (12_345, 6789), (19_999, 1)] {
        let expected = &sent[offset..offset + length];
        let figures = arrives(directory.path(), &path, expected, &format!("--offset {offset} --length {length} --copy-below 0"));
        let in_last_page = (offset + length).saturating_sub(offset.max(16_384)) as u64;
        assert_eq!(figures.number("bytes_copied"), in_last_page, "{offset}+{length}");
    }
}

#[test]
fn a_length_beyond_the_end_is_the_length_to_the_end() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 10_000);
    arrives(directory.path(), &path, &sent[9000..], "--offset 9000 --length 1GiB");
    arrives(directory.path(), &path, &sent[9000..], "--offset 9000 --length 16777215TiB");
}

#[test]
fn an_offset_at_the_end_sends_nothing() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 10_000);
    let figures = arrives(directory.path(), &path, &[], "--offset 10000");
    assert_eq!((figures.number("frames"), figures.number("doorbells")), (0, 0));
    arrives(directory.path(), &path, &[], "--length 0");
}

#[test]
fn an_offset_past_the_end_is_an_error_that_says_the_size() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 10_000);
    let ended = run(send(&path, "sim:e1000", "udp://10.0.2.2:9000", &format!("{SLIRP} --offset 10001"))).with_code(1);
    ended.complains_of(&["--offset 10001", "past the end", "10000"]);
}

#[test]
fn a_part_beyond_four_gibibytes_of_a_sparse_file_arrives() {
    let directory = content::directory();
    let path = directory.path().join("sparse");
    let data = content::bytes(300_000, 7);
    let at = (4 << 30) + 12_345;
    let file = File::create(&path).expect("a file");
    file.set_len((5 << 30) + 100).expect("a sparse file");
    file.write_all_at(&data, at).expect("some data");
    drop(file);
    let figures = arrives(directory.path(), &path, &data, &format!("--offset {at} --length {}", data.len()));
    assert_eq!(figures.number("bytes_copied"), 0);
    // Across the border of 4 GiB, where 32 bits end.
    let mut expected = vec![0; 5000 + 12_345];
    expected.extend_from_slice(&data[..5000]);
    arrives(directory.path(), &path, &expected, &format!("--offset {} --length {}", (4_u64 << 30) - 5000, expected.len()));
    // The very end, whose last page is partial.
    let figures = arrives(directory.path(), &path, &[0; 1100], &format!("--offset {} --copy-below 0", (5_u64 << 30) - 1000));
    assert_eq!(figures.number("bytes_copied"), 100);
}

#[test]
fn a_window_budget_below_the_file_has_it_copied_and_says_so() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_000);
    let figures = arrives(directory.path(), &path, &sent, "--window-budget 4KiB");
    assert_eq!(figures.copied_because(), [("not-mappable".to_owned(), 200_000)]);
}

#[test]
fn the_threshold_for_copying_can_be_chosen() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 50 * 4096);
    for (options, copied) in [("--copy-below auto", 0), ("--copy-below 200KiB", 0), ("--copy-below 204801", sent.len() as u64)] {
        let figures = arrives(directory.path(), &path, &sent, options);
        assert_eq!(figures.number("bytes_copied"), copied, "{options}");
        let reasons = if copied > 0 { vec![("below-threshold".to_owned(), copied)] } else { Vec::new() };
        assert_eq!(figures.copied_because(), reasons, "{options}");
    }
}

#[test]
fn a_file_that_is_sent_several_times_arrives_as_often_from_the_same_windows() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_001);
    let receiver = Receiver::start(directory.path(), "--size 600003 --idle 10");
    let ended = run(send(&path, "sim:e1000", &receiver.target(), &format!("{SLIRP} --rate 400Mbit --repeat 3"))).with_code(0);
    content::assert_same(&receiver.whole().1, &sent.repeat(3));
    let value = ended.json();
    let passes: Vec<Figures> = value["passes"].as_array().expect("passes").iter().cloned().map(Figures).collect();
    let windows: Vec<_> = passes.iter().map(|pass| (pass.0["windows"]["mapped"].as_u64(), pass.0["windows"]["hits"].as_u64())).collect();
    assert_eq!(windows, [(Some(1), Some(0)), (Some(0), Some(1)), (Some(0), Some(1))]);
    passes.iter().for_each(Figures::add_up);
    let total = Figures(value["total"].clone());
    total.add_up();
    assert_eq!(total.number("bytes"), 600_003);
    let cost = &value["after_first"];
    assert_eq!(cost["bytes"], 400_002);
    let [whole, busy] = ["ns_per_kib", "busy_ns_per_kib"].map(|name| cost[name].as_f64().expect("a number"));
    assert!(0.0 < busy && busy <= whole, "{cost}");
}

#[test]
fn a_stream_cannot_be_sent_several_times() {
    let mut command = send("-", "sim:e1000", "udp://10.0.2.2:9000", &format!("{SLIRP} --repeat 2"));
    command.stdin(std::process::Stdio::piped());
    run(command).with_code(1).complains_of(&["--repeat needs a regular file", "standard input"]);
}
