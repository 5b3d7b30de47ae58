//! Somebody wants to change the file while it is sent: by a lease the send is told first, stops, and lets him go on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagewire_tests::command::{Run, SLIRP, as_nobody, run, send, start};
use pagewire_tests::content;
use pagewire_tests::receiver::{Receiver, socket, take, take_rest};

const SIZE: usize = 20_000_000;
/// Far less than the 45 s after which the kernel takes a lease away.
const SOON: Duration = Duration::from_secs(20);

struct UnderWay {
    _directory: tempfile::TempDir,
    path: PathBuf,
    running: Run,
    socket: std::net::UdpSocket,
}

/// A send that takes eight seconds, of which the first datagrams have come.
fn under_way() -> UnderWay {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), SIZE);
    let (socket, target) = socket();
    let running = start(send(&path, "sim:e1000", &target, &format!("{SLIRP} --rate 20Mbit")));
    take(&socket, 5);
    UnderWay { _directory: directory, path, running, socket }
}

/// Does something that waits for the lease, in a thread. How long it took.
fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<(T, Duration)> {
    std::thread::spawn(move || {
        let start = Instant::now();
        let result = work();
        (result, start.elapsed())
    })
}

fn stops(send: UnderWay, writer: JoinHandle<(std::io::Result<()>, Duration)>) {
    let ended = send.running.wait_at_most(SOON);
    let figures = ended.stopped(1);
    assert!(figures.text("stopped").starts_with("file changed"), "{}", ended.all());
    assert_eq!(figures.text("stability"), "lease");
    figures.add_up();
    let bytes = figures.number("bytes");
    assert!(bytes >= 5 * 1472 && bytes < SIZE as u64, "{}", ended.all());
    ended.complains_of(&["another process wants to change it", "bytes were handed to the NIC", &send.path.display().to_string()]);
    let (result, waited) = writer.join().expect("no panic");
    result.expect("the writer goes on when the lease is given up");
    assert!(waited < SOON, "the writer waited {waited:?}");
    // All that was reported has been read by the device before the writer went on.
    assert!(5 * 1472 + take_rest(&send.socket) <= bytes);
}

#[test]
fn a_writer_stops_the_send_and_goes_on() {
    let send = under_way();
    let path = send.path.clone();
    stops(send, in_a_thread(move || OpenOptions::new().write(true).open(path)?.write_all(b"other bytes")));
}

#[test]
fn a_truncation_stops_the_send_and_goes_on() {
    let send = under_way();
    let path = send.path.clone();
    let truncated = path.clone();
    let size = in_a_thread(move || nix::unistd::truncate(&truncated, 100).map_err(std::io::Error::from));
    // The file goes with the directory, which goes with the send.
    let before = File::open(&path).expect("the file");
    stops(send, size);
    assert_eq!(before.metadata().expect("metadata").size(), 100);
}

#[test]
fn a_reader_disturbs_nobody() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 2_000_000);
    let receiver = Receiver::start(directory.path(), "--size 2000000 --idle 10");
    let running = start(send(&path, "sim:e1000", &receiver.target(), &format!("{SLIRP} --rate 20Mbit")));
    let mut read = Vec::new();
    File::open(&path).and_then(|mut file| file.read_to_end(&mut read)).expect("readers go on");
    assert_eq!(running.wait().sent().text("stability"), "lease");
    assert!(read == sent);
    content::assert_same(&receiver.whole().1, &sent);
}

/// A file that somebody, the test, has open for writing.
fn with_a_writer(directory: &Path) -> (PathBuf, Vec<u8>, File) {
    let (path, sent) = content::file(directory, 100_000);
    let writer = OpenOptions::new().write(true).open(&path).expect("the file");
    (path, sent, writer)
}

#[test]
fn a_file_that_is_open_for_writing_is_refused_where_a_lease_is_asked_for() {
    let directory = content::directory();
    let (path, _, _writer) = with_a_writer(directory.path());
    let ended = run(send(&path, "sim:e1000", "udp://10.0.2.2:9", &format!("{SLIRP} --stability lease"))).with_code(1);
    ended.complains_of(&["no lease on", "another process has the file open for writing", "--stability auto"]);
}

#[test]
fn a_file_that_is_open_for_writing_is_sent_by_trust_and_the_report_says_why() {
    let directory = content::directory();
    let (path, sent, _writer) = with_a_writer(directory.path());
    let receiver = Receiver::start(directory.path(), "--size 100000 --idle 10");
    let figures = run(send(&path, "sim:e1000", &receiver.target(), SLIRP)).sent();
    assert_eq!(figures.text("stability"), "trust: another process has the file open for writing");
    content::assert_same(&receiver.whole().1, &sent);
}

#[test]
fn trust_takes_no_lease_so_that_writers_do_not_wait() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 5_000_000);
    let (socket, target) = socket();
    let running = start(send(&path, "sim:e1000", &target, &format!("{SLIRP} --rate 20Mbit --stability trust")));
    take(&socket, 5);
    OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"other bytes")).expect("it does not wait");
    let ended = running.wait();
    // The change is found out in the end.
    let figures = ended.stopped(1);
    assert_eq!(figures.text("stability"), "trust: as asked for");
    assert!(figures.text("stopped").starts_with("file changed"), "{}", ended.all());
}

#[test]
fn a_lease_is_gone_when_the_send_is_over() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 100_000);
    run(send(&path, "sim:e1000", "udp://10.0.2.2:9", SLIRP)).sent();
    let (result, waited) = in_a_thread(move || OpenOptions::new().write(true).open(path)).join().expect("no panic");
    result.expect("nobody holds it");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn a_file_of_another_user_is_sent_by_trust_and_the_report_says_why() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    let receiver = Receiver::start(directory.path(), "--size 100000 --idle 10");
    let figures = run(as_nobody(directory.path(), &send(&path, "sim:e1000", &receiver.target(), SLIRP))).sent();
    assert!(figures.text("stability").contains("belongs to another user"), "{}", figures.0);
    content::assert_same(&receiver.whole().1, &sent);
}
