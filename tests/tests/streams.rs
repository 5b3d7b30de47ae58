//! Sources that have no pages: pipes and standard input are copied, and the report says so.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use pagewire_tests::command::{Ended, Figures, SLIRP, run, send, start};
use pagewire_tests::content;
use pagewire_tests::receiver::Receiver;

fn to(receiver: &Receiver, source: impl AsRef<Path>, options: &str) -> Command {
    send(source.as_ref(), "sim:e1000", &receiver.target(), &format!("{SLIRP} {options}"))
}

fn arrived(ended: Ended, receiver: Receiver, expected: &[u8]) -> Figures {
    let figures = ended.sent();
    figures.add_up();
    content::assert_same(&receiver.whole().1, expected);
    assert_eq!(figures.number("bytes"), expected.len() as u64);
    figures
}

fn receiver(directory: &Path, len: usize) -> Receiver {
    Receiver::start(directory, &format!("--size {len} --idle 10"))
}

#[test]
fn a_pipe_on_standard_input_arrives_whole_and_is_copied() {
    let (directory, sent) = (content::directory(), content::bytes(1_000_003, 1));
    let receiver = receiver(directory.path(), sent.len());
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut command = to(&receiver, "-", "--rate 400Mbit");
    command.stdin(reader);
    let running = start(command);
    let content = sent.clone();
    let feeder = std::thread::spawn(move || writer.write_all(&content));
    let ended = running.wait();
    feeder.join().expect("no panic").expect("all of it was taken");
    let figures = arrived(ended, receiver, &sent);
    assert_eq!(figures.copied_because(), [("stream".to_owned(), sent.len() as u64)]);
    assert_eq!(figures.number("frames"), sent.len().div_ceil(1472) as u64, "every datagram but the last is full");
}

#[test]
fn a_pipe_that_is_written_in_odd_pieces_fills_its_datagrams() {
    let (directory, sent) = (content::directory(), content::bytes(50_000, 2));
    let receiver = receiver(directory.path(), sent.len());
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut command = to(&receiver, "-", "");
    command.stdin(reader);
    let running = start(command);
    let content = sent.clone();
    let feeder = std::thread::spawn(move || content.chunks(777).try_for_each(|piece| writer.write_all(piece)));
    let ended = running.wait();
    feeder.join().expect("no panic").expect("all of it was taken");
    assert_eq!(arrived(ended, receiver, &sent).number("frames"), sent.len().div_ceil(1472) as u64);
}

#[test]
fn a_fifo_arrives_whole_and_is_copied() {
    let (directory, sent) = (content::directory(), content::bytes(100_000, 3));
    let receiver = receiver(directory.path(), sent.len());
    let path = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0)
        .expect("a FIFO");
    let running = start(to(&receiver, &path, ""));
    let content = sent.clone();
    let feeder = std::thread::spawn(move || File::options().write(true).open(path).and_then(|mut fifo| fifo.write_all(&content)));
    let ended = running.wait();
    feeder.join().expect("no panic").expect("all of it was taken");
    let figures = arrived(ended, receiver, &sent);
    assert_eq!(figures.copied_because(), [("stream".to_owned(), sent.len() as u64)]);
}

#[test]
fn a_length_ends_an_endless_stream() {
    let directory = content::directory();
    let receiver = receiver(directory.path(), 100_000);
    let ended = run(to(&receiver, "/dev/zero", "--length 100000"));
    arrived(ended, receiver, &[0; 100_000]);
}

#[test]
fn a_pipe_that_is_closed_at_once_sends_nothing() {
    let directory = content::directory();
    let receiver = receiver(directory.path(), 0);
    let mut command = to(&receiver, "-", "");
    command.stdin(Stdio::null());
    let figures = arrived(run(command), receiver, &[]);
    assert_eq!(figures.number("frames"), 0);
}

#[test]
fn standard_input_that_is_a_regular_file_is_gathered() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 200_000);
    let receiver = receiver(directory.path(), sent.len());
    let mut command = to(&receiver, "-", "");
    command.stdin(File::open(path).expect("the file"));
    let figures = arrived(run(command), receiver, &sent);
    assert_eq!(figures.number("bytes_copied"), sent.len() as u64 % 4096);
    assert_eq!(figures.text("stability"), "lease");
}

#[test]
fn standard_input_that_was_read_from_before_is_sent_from_where_it_stands() {
    // As in `(head -c 5000 >start; pagewire send - ...) <file`, and as every other program takes it.
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    let receiver = Receiver::start(directory.path(), "--idle 1");
    let mut file = File::open(path).expect("the file");
    file.seek(SeekFrom::Start(5000)).expect("a place in it");
    let mut command = to(&receiver, "-", "");
    command.stdin(file);
    arrived(run(command), receiver, &sent[5000..]);
}

#[test]
fn a_stream_cannot_be_entered_in_the_middle() {
    let mut command = send("-", "sim:e1000", "udp://10.0.2.2:9000", &format!("{SLIRP} --offset 1"));
    command.stdin(Stdio::null());
    run(command).with_code(1).complains_of(&["--offset needs a regular file", "standard input"]);
}
