//! `pagewire send --to tcp://`: to ordinary servers on this host.

use std::io::Write;
use std::process::Stdio;

use pagewire_tests::command::{SLIRP, run, send, start};
use pagewire_tests::content;
use pagewire_tests::server::{Server, free_port};

#[test]
fn a_file_of_any_size_arrives_and_all_but_its_last_page_is_gathered() {
    let directory = content::directory();
    for len in [0, 1, 1460, 4096, 1_000_001, 16 << 20] {
        let (path, sent) = content::file(directory.path(), len);
        let server = Server::start();
        let figures = run(send(&path, "sim:e1000", &server.target(), SLIRP)).sent();
        content::assert_same(&server.received(), &sent);
        figures.add_up();
        assert_eq!(figures.0["tcp"]["acknowledged"], len);
        let tail = len as u64 % 4096;
        if figures.0["tcp"]["retransmitted"] == 0 {
            assert_eq!((figures.number("bytes_gathered"), figures.number("bytes_copied")), (len as u64 - tail, tail));
        }
        assert_eq!(figures.text("stability"), "lease");
    }
}

#[test]
fn a_nic_that_does_less_sends_the_same() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 500_000);
    for (nic, reason) in [("sim:e1000,checksum=off", "no-checksum-offload"), ("sim:e1000,gather=off", "no-gather")] {
        let server = Server::start();
        let figures = run(send(&path, nic, &server.target(), SLIRP)).sent();
        content::assert_same(&server.received(), &sent);
        figures.add_up();
        assert_eq!(figures.number("bytes_gathered"), 0);
        assert_eq!(figures.copied_because()[0].0, reason);
    }
}

#[test]
fn a_part_of_a_file_and_what_a_pipe_gives_arrive_too() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 300_000);
    let server = Server::start();
    run(send(&path, "sim:e1000", &server.target(), &format!("{SLIRP} --offset 1000 --length 200000"))).sent().add_up();
    content::assert_same(&server.received(), &sent[1000..201_000]);

    let server = Server::start();
    let mut command = send("-", "sim:e1000", &server.target(), SLIRP);
    let (input, mut writer) = std::io::pipe().expect("a pipe");
    command.stdin(Stdio::from(input));
    let running = start(command);
    writer.write_all(&sent).expect("a reader");
    drop(writer);
    let figures = running.wait().sent();
    content::assert_same(&server.received(), &sent);
    figures.add_up();
    assert_eq!(figures.copied_because(), [("stream".to_owned(), 300_000)]);
}

#[test]
fn a_port_that_nobody_listens_at_is_told() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 1000);
    let ended = run(send(&path, "sim:e1000", &format!("tcp://10.0.2.2:{}", free_port()), SLIRP)).with_code(1);
    ended.complains_of(&["refused", "start the server"]);
    assert_eq!(ended.json()["bytes"], 0);
}
