//! Receivers on this host: `pagewire receive`, and a plain socket.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Ended, Figures, Run, pagewire, start};
use crate::{PATIENCE, wait_for};

/// `pagewire receive`, listening.
#[derive(Debug)]
pub struct Receiver {
    run: Run,
    /// Where it listens.
    pub port: u16,
    output: PathBuf,
}

impl Receiver {
    /// Starts it on this host, with further options as on a command line; it listens when this returns.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(directory: &Path, options: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), directory, options)
    }

    /// As [`start`](Self::start), at an address.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_at(address: IpAddr, directory: &Path, options: &str) -> Self {
        // Between the two bindings somebody else may take the port.
        for _ in 0..10 {
            let port = free_port(address);
            let output = directory.join(format!("received-{port}"));
            let mut command = pagewire(["receive", &format!("udp://{}", SocketAddr::new(address, port)), "--json", "-o"]);
            command.arg(&output).args(options.split_whitespace());
            let run = start(command);
            // It may have ended already, when it waits for nothing.
            let said = wait_for("the receiver to listen", || Some(run.complaints()).filter(|said| said.contains('\n')));
            if said.contains("listening at") {
                return Self { run, port, output };
            }
            let ended = run.wait();
            assert!(ended.stderr.contains("another program listens"), "{}", ended.all());
        }
        panic!("ten free ports were taken by others");
    }

    /// As a target on QEMU's user network, where this host is 10.0.2.2.
    pub fn target(&self) -> String {
        format!("udp://10.0.2.2:{}", self.port)
    }

    /// Waits for its end; what it said, and the file that it wrote.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(self) -> (Ended, Vec<u8>) {
        let ended = self.run.wait();
        (ended, fs::read(&self.output).unwrap_or_default())
    }

    /// Waits for its end, which has to be good: everything is there, and nothing twice.
    ///
    /// # Panics
    /// When it is not.
    pub fn whole(self) -> (Figures, Vec<u8>) {
        let (ended, content) = self.end();
        let figures = ended.stopped(0);
        assert_eq!(figures.0["gaps"], serde_json::json!([]), "{}", ended.all());
        assert_eq!(figures.number("bytes"), content.len() as u64, "{}", ended.all());
        for name in ["bytes_repeated", "dropped", "ignored"] {
            assert_eq!(figures.number(name), 0, "{name}: {}", ended.all());
        }
        (figures, content)
    }
}

/// A UDP port that was free a moment ago.
///
/// # Panics
/// When there is none.
pub fn free_port(address: IpAddr) -> u16 {
    UdpSocket::bind((address, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A socket of the test's own on this host, and the target that leads to it from QEMU's user network.
///
/// # Panics
/// When it cannot be had.
pub fn socket() -> (UdpSocket, String) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let target = format!("udp://10.0.2.2:{}", socket.local_addr().expect("an address").port());
    (socket, target)
}

/// Takes `count` datagrams off a socket: the send is under way.
///
/// # Panics
/// When they do not come within [`PATIENCE`] each.
pub fn take(socket: &UdpSocket, count: usize) {
    let mut datagram = [0; 65_536];
    for number in 0..count {
        socket.recv(&mut datagram).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
    }
}

/// Takes what is left, until nothing comes for a moment. The number of bytes.
///
/// # Panics
/// When the socket fails.
pub fn take_rest(socket: &UdpSocket) -> u64 {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    let mut datagram = [0; 65_536];
    let mut bytes = 0;
    while let Ok(len) = socket.recv(&mut datagram) {
        bytes += len as u64;
    }
    bytes
}
