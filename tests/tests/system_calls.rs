//! What the whole command asks the kernel for while it sends: far fewer calls than frames, and none that reads the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use pagewire_tests::command::{SLIRP, run, send};
use pagewire_tests::receiver::socket;
use pagewire_tests::{content, tool};

/// strace follows QEMU too, which makes calls for each frame, so this is not more than it takes to see what does not grow with it.
const SIZE: usize = 16 << 20;

/// The lines of strace for each thread of the process that became `program`: not those of the processes that it started.
fn lines(directory: &Path, program: &str) -> Vec<String> {
    let logs: BTreeMap<u32, String> = fs::read_dir(directory)
        .expect("the logs")
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("calls.")?.parse().ok()?;
            Some((number, fs::read_to_string(entry.path()).ok()?))
        })
        .collect();
    let start = format!("execve(\"{program}\"");
    let first = logs.iter().find(|(_, log)| log.starts_with(&start));
    let mut waiting = vec![*first.expect("the command's own log").0];
    let mut lines = Vec::new();
    while let Some(thread) = waiting.pop() {
        for line in logs.get(&thread).map(|log| log.lines()).into_iter().flatten() {
            if line.starts_with("clone") && line.contains("CLONE_THREAD") {
                waiting.extend(line.rsplit("= ").next().and_then(|number| number.trim().parse::<u32>().ok()));
            }
            if !line.starts_with("---") && !line.starts_with("+++") {
                lines.push(line.to_owned());
            }
        }
    }
    lines
}

/// What a call returned, when that is a number.
fn returned(line: &str) -> Option<u64> {
    line.rsplit(" = ").next()?.split(' ').next()?.parse().ok()
}

#[test]
fn a_send_makes_a_call_for_many_frames_and_reads_no_payload() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), SIZE + 100);
    let (_socket, target) = socket();
    let plain = send(&path, "sim:e1000", &target, SLIRP);
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let mut command = Command::new(tool("strace", "strace"));
    // -ff: a file a thread; -y: paths of descriptors.
    command.args(["-ff", "-y", "-qq", "-o"]).arg(logs.join("calls"));
    command.arg("--").arg(plain.get_program()).args(plain.get_args());
    let figures = run(command).sent();
    figures.add_up();
    let frames = figures.number("frames");
    assert_eq!(frames, (SIZE as u64 + 100).div_ceil(1472));

    let lines = lines(&logs, &plain.get_program().to_string_lossy());
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &lines {
        *by_name.entry(line.split('(').next().unwrap_or_default()).or_default() += 1;
    }
    assert!(by_name.contains_key("fcntl"), "the log is the command's: {by_name:?}");
    assert!((lines.len() as u64) < frames / 4, "{} calls for {frames} frames: {by_name:?}", lines.len());

    // Every kind of reading: read, pread64, readv, preadv, preadv2, sendfile, splice, copy_file_range, and a mapping.
    let file = format!("<{}>", path.display());
    let of_file: Vec<&String> = lines.iter().filter(|line| line.contains(&file)).collect();
    assert!(!of_file.is_empty(), "the file was opened");
    let read: u64 = of_file
        .iter()
        .filter(|line| ["read", "pread", "sendfile", "splice", "copy_file_range"].iter().any(|name| line.starts_with(name)))
        .filter_map(|line| returned(line))
        .sum();
    assert_eq!(read, 100, "the partial last page, and nothing else: {of_file:#?}");
    assert!(!of_file.iter().any(|line| line.starts_with("mmap")), "{of_file:#?}");
}
