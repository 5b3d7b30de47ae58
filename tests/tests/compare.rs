//! `pagewire compare`: a row for each way, measured in guests, and the receiver's hash right in each.

use std::time::Duration;

use pagewire_tests::command::{pagewire, start};
use pagewire_tests::content;

/// Two guests, one after the other, and sends under strace in the second.
const PATIENCE: Duration = Duration::from_secs(480);

const KERNEL: [&str; 6] = ["read+write", "mmap+write", "sendfile", "splice", "MSG_ZEROCOPY", "io_uring SEND_ZC"];
const OURS: [&str; 3] = ["pagewire, copying", "pagewire, cold windows", "pagewire, warm windows"];

#[test]
fn every_way_is_measured_and_all_of_it_arrives() {
    let directory = content::directory();
    let picture = directory.path().join("compare.svg");
    let mut command = pagewire(["compare", "--size", "4MiB", "--passes", "1", "--json", "--svg"]);
    command.arg(&picture);
    let ended = start(command).wait_at_most(PATIENCE).with_code(0);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.all()));
    let rows = figures["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["way"].as_str()).collect();
    assert_eq!(names, [&KERNEL[..], &OURS].concat());
    let figure = |way: &str, name: &str| {
        let row = rows.iter().find(|row| row["way"] == way).expect("the row");
        row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"))
    };
    for row in rows {
        assert_eq!((&row["failed"], &row["right"]), (&serde_json::Value::Null, &row["received"]), "{row}");
        assert!(row["right"].as_u64() >= Some(2), "{row}");
        assert!(row["instructions_per_kib"].as_f64() > Some(0.0), "{row}");
    }
    for way in KERNEL {
        assert!(figure(way, "calls_per_mib") >= 16.0, "a call sends 64 KiB at most: {figures}");
    }
    // Each byte once out of the file, and once into the socket.
    assert_eq!(figure("read+write", "copied_per_kib"), 2048.0);
    assert_eq!(figure("mmap+write", "copied_per_kib"), 1024.0);
    assert_eq!(figure(OURS[0], "copied_per_kib"), 1024.0);
    assert_eq!((figure(OURS[1], "copied_per_kib"), figure(OURS[2], "copied_per_kib")), (0.0, 0.0));
    let per_kib = |way| figure(way, "instructions_per_kib");
    assert!(per_kib(OURS[2]) < per_kib(OURS[1]) && per_kib(OURS[2]) < per_kib(OURS[0]), "windows that are there cost least: {figures}");
    let svg = std::fs::read_to_string(picture).expect("a picture");
    assert_eq!(svg.lines().filter(|line| line.starts_with("<rect x=")).count(), rows.len(), "{svg}");
}

#[test]
fn a_kernel_without_a_driver_is_told_and_ours_is_measured_all_the_same() {
    let command = pagewire(["compare", "--size", "1MiB", "--passes", "1", "--nic", "e1000", "--json", "--wire", "user"]);
    let ended = start(command).wait_at_most(PATIENCE).with_code(1);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.all()));
    let rows = figures["rows"].as_array().expect("rows");
    for row in rows {
        let way = row["way"].as_str().expect("a name");
        if KERNEL.contains(&way) {
            assert!(row["failed"].as_str().is_some_and(|why| why.contains("no interface for this NIC")), "{row}");
            assert_eq!(row["instructions_per_kib"], serde_json::Value::Null);
        } else {
            assert!(row["failed"].is_null() && row["instructions_per_kib"].as_f64() > Some(0.0), "{row}");
        }
    }
    assert_eq!(rows.len(), KERNEL.len() + OURS.len());
}
