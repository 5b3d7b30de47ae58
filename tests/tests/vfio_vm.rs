//! `pagewire vm`: a command in a guest behaves as one on this host.

#[allow(dead_code, reason = "every test program uses a part of it")]
#[path = "../src/guest.rs"]
mod guest;

use std::io::Write;
use std::time::Duration;

use guest::NIC;
use pagewire_tests::command::{Figures, pagewire, run, start};
use pagewire_tests::process::{Signal, is_gone};
use pagewire_tests::{content, wait_for};

#[test]
fn input_output_errors_and_the_exit_code_go_through_unchanged() {
    let directory = content::directory();
    let path = directory.path().join("a file's name");
    // All that a terminal would change, and letters beyond ASCII.
    let text: String = (0..0x250_u32).filter_map(char::from_u32).collect();
    std::fs::write(&path, &text).expect("a file in the temporary directory");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut command = pagewire(["vm", "--", "sh", "-c", r#"cat "$1"; cat; echo a word >&2; exit 77"#, "script"]);
    command.arg(&path).stdin(reader);
    writer.write_all(text.as_bytes()).expect("room in the pipe");
    drop(writer);
    let ended = run(command).with_code(77);
    assert!(ended.stdout == text.repeat(2), "{:?}", ended.stdout);
    assert_eq!(ended.stderr, "a word\n");
}

#[test]
fn a_shell_in_the_guest_finds_the_program_by_its_name() {
    let mut command = pagewire(["vm", "--", "sh", "-c", "pagewire nics"]);
    command.stdin(std::process::Stdio::null());
    let ended = run(command).with_code(0);
    assert!(ended.stdout.lines().any(|line| line.starts_with(NIC) && line.ends_with("yes, through VFIO")), "{}", ended.all());
}

#[test]
fn a_benchmark_in_a_guest_that_counts_instructions_gives_a_line_with_its_rate() {
    let mut command = pagewire(["vm", "--icount", "--", "bench", "tx", "--nic", NIC, "--size", "64", "--seconds", "1", "--json"]);
    command.stdin(std::process::Stdio::null());
    let ended = run(command).with_code(0);
    let figures = Figures(ended.json());
    println!("{}", figures.0);
    assert!(figures.0["pps"].as_f64().is_some_and(|pps| pps > 0.0), "{}", figures.0);
    assert!(figures.0["busy_ns_per_frame"].as_f64().is_some_and(|instructions| instructions > 0.0), "{}", figures.0);
    assert!(figures.number("frames") > 0 && figures.number("descriptors") == figures.number("frames"), "{}", figures.0);
}

#[test]
fn ctrl_c_ends_the_guest_and_its_qemu() {
    let mut command = pagewire(["vm", "--", "sleep", "1000"]);
    command.stdin(std::process::Stdio::null());
    let mut running = start(command);
    let qemu = running.qemu();
    running.signal(Signal::INT);
    let ended = running.wait_at_most(Duration::from_secs(20)).with_code(130);
    assert_eq!(ended.stdout, "");
    wait_for("QEMU to be gone", || is_gone(qemu).then_some(()));
}

#[test]
fn what_cannot_be_run_is_told_before_anything_boots() {
    for (arguments, code, texts) in [
        (["vm", "--"].as_slice(), 2, ["COMMAND"].as_slice()),
        (&["vm"], 2, &["COMMAND"]),
        (&["vm", "--", "no-such-program"], 1, &["no-such-program"]),
        (&["vm", "--share", "/no/such/file", "--", "true"], 1, &["/no/such/file"]),
        (&["vm", "--kernel", "/no/such/kernel", "--", "true"], 1, &["--modules", "--kernel backports"]),
        (&["vm", "--modules", "/no/such/modules", "--", "true"], 2, &["--kernel"]),
        (&["vm", "--nic", "abacus", "--", "true"], 2, &["abacus"]),
        (&["vm", "--memory", "8000000TiB", "--", "true"], 1, &["--memory"]),
        (&["vm", "--nic", "pci:0000:00:02.0", "--", "true"], 2, &["pci:0000:00:02.0"]),
    ] {
        let ended = run(pagewire(arguments)).with_code(code);
        ended.complains_of(texts);
        assert_eq!(ended.stdout, "");
    }
}
