//! A download of 3 GiB, more than half of TCP's sequence space, over Linux' TCP and over slirp's, each byte compared. A minute.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pagewire_tests::content;
use pagewire_tests::namespace::Namespace;
use pagewire_tests::web::{self, Client, Server};

const SIZE: u64 = (3 << 30) + 1;
const BLOCK: usize = 1 << 20;

/// A sparse file, with bytes that tell one place from another around each power of two.
fn sparse(directory: &Path) -> PathBuf {
    let path = directory.join("sparse");
    let file = File::create(&path).expect("a file");
    file.set_len(SIZE).expect("a sparse file");
    for (seed, around) in (1..).zip([1 << 20, 1 << 30, 1 << 31, 3 << 30]) {
        let len = 300_000.min(SIZE - (around - 150_000));
        file.write_all_at(&content::bytes(len as usize, seed), around - 150_000).expect("room");
    }
    path
}

/// Downloads the file, and compares it with what the kernel reads from it.
fn arrives(server: &Server, path: &Path) {
    let (mut client, file) = (server.connect(), File::open(path).expect("the file"));
    client.send("GET /sparse HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let mut body = body(&mut client);
    let (mut received, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < SIZE {
        let len = (SIZE - at).min(BLOCK as u64) as usize;
        body.read_exact(&mut received[..len]).unwrap_or_else(|error| panic!("after {at} bytes and less than a MiB more: {error}"));
        file.read_exact_at(&mut expected[..len], at).expect("the file");
        assert!(received[..len] == expected[..len], "in the MiB at {at}");
        at += len as u64;
    }
    assert_eq!(body.read(&mut received).expect("an end"), 0, "nothing follows");
}

/// What follows the header of an answer.
fn body(client: &mut Client) -> impl Read {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.socket.read_exact(&mut byte).expect("a header");
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("Content-Length: {SIZE}\r\n")), "{head}");
    &client.socket
}

/// That all of it was gathered, but for the last byte, which is alone on its page.
fn was_gathered(server: Server) {
    server.wait_for_log(&["/sparse", &format!(" 200 {SIZE} ")]);
    let account = server.stop();
    let [gathered, copied, again] = ["bytes_gathered", "bytes_copied", "retransmitted"].map(|name| account.number(&format!("/tcp/{name}")));
    assert!(gathered >= SIZE - 1 && gathered + copied == SIZE + again && copied <= 1 + again, "{}", account.figures);
}

#[test]
fn three_gibibytes_arrive_over_tap() {
    let (network, directory) = (Namespace::new(&["10.9.0.1/24"]), content::directory());
    let path = sparse(directory.path());
    // The client's socket, too.
    network.enter();
    let nic = format!("sim:virtio-net,wire=tap:{}", Namespace::TAP);
    let server = Server::begin(web::command(directory.path(), &nic, "10.9.0.2/24", ""), SocketAddr::from(([10, 9, 0, 2], 80)));
    arrives(&server, &path);
    was_gathered(server);
}

#[test]
fn three_gibibytes_arrive_over_the_user_network() {
    let directory = content::directory();
    let path = sparse(directory.path());
    let server = Server::start(directory.path(), "");
    arrives(&server, &path);
    was_gathered(server);
}
