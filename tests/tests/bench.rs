//! `pagewire bench`: what its figures say is what went over the wire.

use std::path::Path;
use std::process::Command;

use pagewire_tests::command::{Figures, Run, pagewire, run, start};
use pagewire_tests::peer::{Peer, ping};
use pagewire_tests::process::Signal;
use pagewire_tests::{content, wait_for};
use serde_json::Value;

fn bench(what: &str, options: &str) -> Command {
    let mut command = pagewire(["bench", what, "--json"]);
    command.args(options.split_whitespace());
    command
}

fn real(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {figures}"))
}

/// Two simulated NICs that are connected with each other.
fn pair(directory: &Path) -> [String; 2] {
    let [left, right] = ["left", "right"].map(|name| directory.join(name).display().to_string());
    [format!("sim:e1000,wire=dgram:{left}:{right}"), format!("sim:e1000,wire=dgram:{right}:{left}")]
}

/// Its figures, after Ctrl-C.
fn interrupt(mut running: Run) -> Figures {
    running.signal(Signal::INT);
    running.wait().stopped(130)
}

#[test]
fn round_trips_through_another_nic_have_percentiles_and_a_mean_that_is_the_inverse_of_the_rate() {
    let directory = content::directory();
    let [left, right] = pair(directory.path());
    let forwarding = start(bench("forward", &format!("--nic {left} --seconds 600")));
    wait_for("the other NIC", || directory.path().join("left").exists().then_some(()));
    let report = directory.path().join("latency.html");
    let mut command = bench("latency", &format!("--nic {right} --size 64,200 --seconds 1"));
    command.arg("--report").arg(&report);
    let figures = Figures(run(command).with_code(0).json());
    let forwarded = interrupt(forwarding);

    let trips = figures.number("frames");
    let latency = &figures.0["latency"];
    assert!(trips > 0 && latency["samples"] == trips, "{}", figures.0);
    assert!((real(latency, "mean_ns") * real(&figures.0, "pps") / 1e9 - 1.0).abs() < 1e-6, "{}", figures.0);
    let times = ["min_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns"].map(|name| real(latency, name));
    assert!(times[0] > 0.0 && times.is_sorted(), "{}", figures.0);
    assert!(real(&figures.0, "cycles_per_packet") > 0.0 && figures.number("doorbells") >= trips, "{}", figures.0);
    // Each went through the other NIC: besides those, the first one and perhaps its repetitions, and the one under way at the end.
    assert!(forwarded.number("frames") > trips, "{} of {}", forwarded.0, figures.0);
    assert_eq!(forwarded.number("drops"), 0);

    let page = std::fs::read_to_string(report).expect("a report");
    assert!(page.contains("<svg") && page.contains("Round trip") && !page.contains("http"), "{page}");
}

#[test]
fn what_is_forwarded_comes_back_with_its_addresses_exchanged() {
    const STATION: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
    const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];
    let directory = content::directory();
    let peer = Peer::start(directory.path(), &[]);
    let running = start(bench("forward", &format!("--nic {} --mac-swap --seconds 600", peer.nic("e1000"))));
    wait_for("the NIC", || directory.path().join("nic").exists().then_some(()));
    // For another station than the NIC: it takes what is for anybody.
    let frame = |number: u16| {
        let data = content::bytes(usize::from(number) * 70, number.into());
        ping(([192, 0, 2, 2].into(), STATION), ([192, 0, 2, 9].into(), OTHER), 7, number, &data)
    };
    // What arrives at a NIC that is not started yet is lost, and QEMU keeps what comes in the first second: not more than the ring holds.
    let mut looks = 0;
    peer.wait("the first one back", |heard| {
        if looks % 50 == 0 {
            peer.send(&frame(0));
        }
        looks += 1;
        (!heard.is_empty()).then_some(())
    });
    let frames: Vec<Vec<u8>> = (1..=20).map(frame).collect();
    frames.iter().for_each(|frame| peer.send(frame));
    peer.wait("the last one back", |heard| heard.last().is_some_and(|last| last.frame.len() == frames[19].len()).then_some(()));
    let figures = interrupt(running);
    let heard = peer.end();
    assert_eq!((figures.number("frames"), figures.number("drops")), (heard.len() as u64, 0));
    for (one, frame) in heard[heard.len() - frames.len()..].iter().zip(&frames) {
        assert_eq!((one.checked.source_mac.0, one.checked.destination_mac.0), (OTHER, STATION));
        assert!(one.frame[12..] == frame[12..one.frame.len()]);
    }
}

#[test]
fn what_is_in_a_vlan_is_forwarded_between_nics_of_any_kind() {
    let directories = [content::directory(), content::directory()];
    let [left, right] = directories.each_ref().map(|directory| Peer::start(directory.path(), &[]));
    let running = start(bench("forward", &format!("--nic {} --nic {} --seconds 600", left.nic("e1000"), right.nic("virtio-net"))));
    wait_for("the NICs", || directories.iter().all(|directory| directory.path().join("nic").exists()).then_some(()));
    let mut frame =
        ping(([192, 0, 2, 2].into(), [0x52, 0x54, 0, 0, 0, 2]), ([192, 0, 2, 9].into(), [0x52, 0x54, 0, 0, 0, 9]), 7, 1, b"hello");
    frame.splice(12..12, [0x81, 0, 0, 100]);
    for (from, to) in [(&left, &right), (&right, &left)] {
        let mut looks = 0;
        let heard = to.wait("the frame at the other end", |heard| {
            // A receiver that is not started yet hears nothing.
            if looks % 50 == 0 {
                from.send(&frame);
            }
            looks += 1;
            heard.first().cloned()
        });
        assert_eq!((heard.checked.vlan, &heard.frame), (Some(100), &frame));
    }
    interrupt(running);
}

#[test]
fn two_nics_in_one_program_pass_packets_to_each_other() {
    let directory = content::directory();
    let [left, right] = pair(directory.path());
    let figures = Figures(run(bench("forward", &format!("--nic {left} --nic {right} --inject 16 --seconds 3"))).with_code(0).json());
    // QEMU's receivers are deaf for a second; then 32 packets go around.
    assert!(figures.number("frames") > 32, "{}", figures.0);
    assert!(real(&figures.0, "seconds") >= 3.0, "{}", figures.0);
}

#[test]
fn a_sweep_gives_a_line_with_the_figures_of_every_burst_and_a_page() {
    let directory = content::directory();
    let report = directory.path().join("curves.html");
    let mut command = bench("tx", "--nic sim:e1000 --size 64,500 --sweep burst --seconds 1 --cpu 0");
    command.arg("--report").arg(&report);
    let line = run(command).with_code(0).json();
    let points: Vec<Figures> = line["points"].as_array().expect("points").iter().cloned().map(Figures).collect();
    assert_eq!(points.iter().map(|one| one.number("burst")).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    for one in &points {
        let [frames, doorbells, descriptors] = ["frames", "doorbells", "descriptors"].map(|name| one.number(name));
        assert!(frames > 0 && descriptors == 2 * frames, "{}", one.0);
        // A ring of 256 has room for 127 packets of two descriptors.
        assert!(doorbells >= frames.div_ceil(one.number("burst").min(127)), "{}", one.0);
        assert!(real(&one.0, "cycles_per_packet") > 0.0 && real(&one.0, "pps") > 0.0, "{}", one.0);
    }
    let page = std::fs::read_to_string(report).expect("a report");
    assert_eq!(page.matches("<svg").count(), 2, "packets a second, and cycles a packet");
    assert!(!page.contains("http"), "it needs no network");
}

#[test]
fn a_reception_ends_at_once_when_it_is_interrupted() {
    let directory = content::directory();
    let peer = Peer::start(directory.path(), &[]);
    let running = start(bench("rx", &format!("--nic {} --seconds 600", peer.nic("e1000"))));
    wait_for("the NIC", || directory.path().join("nic").exists().then_some(()));
    let figures = interrupt(running);
    assert_eq!(figures.text("kind"), "rx");
    assert!(real(&figures.0, "seconds") < 600.0, "{}", figures.0);
}

#[test]
fn a_measurement_that_cannot_be_says_why() {
    for (what, options, code, says) in [
        ("tx", "--nic sim:e1000 --size 41", 1, "a first segment of 41 bytes; it has 42 to 2048"),
        ("tx", "--nic sim:e1000 --size 64,0", 1, "an empty segment"),
        ("tx", "--nic sim:e1000,gather=off --size 64,1400", 1, "gathers 1"),
        ("tx", "--nic sim:e1000 --burst 300", 1, "use 1 to 256"),
        ("tx", "--nic sim:e1000 --queues 2", 1, "one queue pair"),
        ("tx", "--nic sim:e1000 --cpu 1023", 1, "processor 1023 cannot be used"),
        ("tx", "--nic sim:e1000 --cpu 3-1", 2, "ends before it begins"),
        ("tx", "--nic sim:e1000 --cpu 0,1", 1, "2 processors for 1 queues; name one for each"),
        ("tx", "--nic sim:e1000 --burst 8 --sweep burst", 2, "--sweep"),
        ("tx", "--nic sim:e1000 --nic sim:e1000", 2, "--nic"),
        ("tx", "", 2, "--nic"),
        ("forward", "--nic sim:e1000 --nic sim:e1000 --nic sim:e1000", 1, "one or two"),
        ("forward", "--nic sim:e1000 --inject 256", 1, "holds 255"),
        ("latency", "--nic sim:e1000 --size 49", 1, "50 to 2048"),
        ("latency", "--nic sim:e1000", 1, "pagewire bench forward"),
    ] {
        let ended = run(bench(what, options)).with_code(code);
        ended.complains_of(&[says]);
        assert_eq!(ended.stdout, "", "{what} {options}");
    }
}
