//! `pagewire demo`: what a visitor tries first.

use pagewire_tests::command::{Ended, Figures, pagewire, run};
use pagewire_tests::{capture, content};

/// What the command hands over with one doorbell unless it is told otherwise.
const BURST: u64 = 32;

fn figures(ended: Ended) -> Figures {
    let figures = ended.sent();
    figures.add_up();
    figures
}

#[test]
fn a_made_file_arrives_whole_and_all_but_its_last_page_is_gathered() {
    let figures = figures(run(pagewire(["demo", "--json"])));
    for name in ["bytes", "frames", "descriptors", "doorbells", "bytes_gathered", "bytes_copied", "frames_checked"] {
        assert!(figures.number(name) > 0, "{name} in {}", figures.0);
    }
    for name in ["mapped", "hits", "evicted"] {
        assert!(figures.0["windows"][name].is_u64(), "windows.{name} in {}", figures.0);
    }
    assert_eq!(figures.0["windows"]["mapped"], 1, "the rig maps whole files: {}", figures.0);
    for name in ["seconds", "first_frame_seconds"] {
        assert!(figures.0[name].as_f64().is_some_and(|seconds| seconds > 0.0), "{name} in {}", figures.0);
    }
    assert_eq!(figures.text("sha256_file"), figures.text("sha256_received"));
    assert_eq!(figures.text("sha256_file").len(), 64);
    assert_eq!(figures.number("frames_checked"), figures.number("frames"));
    assert_eq!(figures.text("stability"), "lease");

    let tail = figures.number("bytes") % 4096;
    assert!(tail > 0, "the made file ends within a page");
    assert_eq!(figures.copied_because(), [("partial-last-page".to_owned(), tail)]);
    assert_eq!(figures.number("doorbells"), figures.number("frames").div_ceil(BURST), "{}", figures.0);
}

#[test]
fn the_second_part_serves_the_file_to_a_tcp_client() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 5_000_001);
    let figures = figures(run(pagewire(["demo".as_ref(), path.as_os_str(), "--json".as_ref()])));
    let served = Figures(figures.0["served"].clone());
    assert_eq!(served.text("sha256_downloaded"), content::sha256(&sent));
    assert_eq!(served.number("downloaded"), sent.len() as u64);
    assert_eq!((served.number("accepted"), served.number("retransmitted")), (1, 0), "{}", served.0);
    assert_eq!(served.number("acknowledged"), sent.len() as u64 + served.number("bytes_program"), "{}", served.0);
    let tail = sent.len() as u64 % 4096;
    assert_eq!((served.number("bytes_gathered"), served.number("bytes_copied")), (sent.len() as u64 - tail, tail));
    // The NIC cuts what it is given.
    assert!(served.number("frames") * 5 < sent.len() as u64 / 1460, "{}", served.0);
    assert!(served.text("url").starts_with("http://127.0.0.1:") && served.text("url").ends_with("/5000001.bin"), "{}", served.0);
    assert!(served.0["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{}", served.0);
}

#[test]
fn a_given_file_arrives_whole_and_its_hash_is_told() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 1_000_000);
    let figures = figures(run(pagewire(["demo".as_ref(), path.as_os_str(), "--json".as_ref()])));
    assert_eq!(figures.number("bytes"), sent.len() as u64);
    assert_eq!(figures.text("sha256_received"), content::sha256(&sent));
    assert_eq!(figures.number("bytes_copied"), sent.len() as u64 % 4096);
}

#[test]
fn a_file_of_whole_pages_is_not_copied_at_all() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 64 * 4096);
    let figures = figures(run(pagewire(["demo".as_ref(), path.as_os_str(), "--json".as_ref()])));
    assert_eq!((figures.number("bytes_gathered"), figures.number("bytes_copied")), (sent.len() as u64, 0));
    assert_eq!(figures.copied_because(), []);
}

/// QEMU's wires but TAP have no checksum offload for virtio-net: everything is copied, and arrives all the same.
#[test]
fn a_virtio_card_sends_the_file_on_every_kind_of_ring() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 3_000_001);
    let file = path.to_str().expect("UTF-8");
    for options in
        ["", ",packed=on", ",event_idx=off", ",packed=on,event_idx=off", ",indirect_desc=off", ",tx-ring=8", ",disable-legacy=off"]
    {
        let nic = format!("sim:virtio-net{options}");
        let figures = figures(run(pagewire(["demo", file, "--json", "--nic", &nic])));
        assert_eq!(figures.text("sha256_received"), content::sha256(&sent), "{nic}");
        assert_eq!(figures.number("frames_checked"), figures.number("frames"), "{nic}");
        assert_eq!(figures.copied_because(), [("no-checksum-offload".to_owned(), sent.len() as u64)], "{nic}");
    }
}

#[test]
fn a_demonstration_is_on_a_simulated_nic_without_a_wire() {
    for (nic, says) in [("pci:0000:00:03.0", "is on a simulated NIC"), ("sim:e1000,wire=tap:t0", "leave wire= out")] {
        run(pagewire(["demo", "--nic", nic])).with_code(1).complains_of(&[says]);
    }
    run(pagewire(["demo", "--nic", "sim:virtio-net,packed=on,disable-modern=on,disable-legacy=off"]))
        .with_code(1)
        .complains_of(&["VIRTIO 1.0"]);
    run(pagewire(["demo", "--nic", "sim:virtio-net,queues=2"])).with_code(1).complains_of(&["2 queue pairs", "multi_queue"]);
}

#[test]
fn its_capture_has_every_frame_and_the_whole_file() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 300_001);
    let pcap = directory.path().join("frames.pcap");
    let figures = figures(run(pagewire(["demo".as_ref(), path.as_os_str(), "--json".as_ref(), "--pcap".as_ref(), pcap.as_os_str()])));
    let datagrams = capture::datagrams(&pcap);
    assert_eq!(datagrams.len() as u64, figures.number("frames"));
    let mut received = Vec::new();
    for (checked, frame) in &datagrams {
        let (offset, data) = frame[checked.payload.clone()].split_first_chunk().expect("an offset in front of the data");
        assert_eq!(u64::from_be_bytes(*offset), received.len() as u64);
        received.extend_from_slice(data);
    }
    content::assert_same(&received, &sent);
}

#[test]
fn people_get_a_table_and_a_verdict() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_000);
    let ended = run(pagewire(["demo".as_ref(), path.as_os_str()])).with_code(0);
    for text in [
        &content::sha256(&sent),
        "Every frame is right, and what arrived is the file.",
        "What an ordinary TCP client downloaded is the file.",
        "partial last page",
        "gathered by the NIC",
    ] {
        assert!(ended.stdout.contains(text), "{text:?} in {}", ended.all());
    }
    assert_eq!(ended.stderr, "", "without a terminal there is no progress bar, and nothing to complain of");
}

#[test]
fn a_directory_and_a_missing_file_are_refused_by_name() {
    let directory = content::directory();
    let ended = run(pagewire(["demo".as_ref(), directory.path().as_os_str(), "--json".as_ref()])).with_code(1);
    ended.complains_of(&["is a directory", &directory.path().display().to_string()]);
    assert_eq!(ended.stdout, "");
    let missing = directory.path().join("nothing here");
    run(pagewire(["demo".as_ref(), missing.as_os_str()])).with_code(1).complains_of(&["nothing here", "No such file"]);
}
