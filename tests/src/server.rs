//! Ordinary TCP sockets as the other end: a server that takes what comes, a client that reads to the end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::{PATIENCE, wait_for};

/// A server that takes one connection and reads it to its end.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub port: u16,
    thread: JoinHandle<Vec<u8>>,
}

impl Server {
    /// Starts it on this host.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts it at an address, in the network of the calling thread.
    ///
    /// # Panics
    /// When the address is not to be had.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let port = listener.local_addr().expect("it is bound").port();
        let thread = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a client");
            let mut received = Vec::new();
            connection.read_to_end(&mut received).expect("an end without an error");
            received
        });
        Self { port, thread }
    }

    /// As a target on QEMU's user network, where this host is 10.0.2.2.
    pub fn target(&self) -> String {
        format!("tcp://10.0.2.2:{}", self.port)
    }

    /// What it received.
    ///
    /// # Panics
    /// When nobody connected, or the connection was reset.
    pub fn received(self) -> Vec<u8> {
        wait_for("the connection's end", || self.thread.is_finished().then_some(()));
        self.thread.join().expect("it received to the end")
    }
}

/// A port of this host at which nobody listens now.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Connects to `address`, says `request`, and reads to the end.
///
/// # Panics
/// When nobody listens within [`PATIENCE`], or the connection ends with an error.
pub fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut connection = wait_for("a server", || TcpStream::connect(address).ok());
    connection.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    connection.write_all(request).expect("a connection that takes a request");
    let mut received = Vec::new();
    connection.read_to_end(&mut received).unwrap_or_else(|error| panic!("after {} bytes: {error}", received.len()));
    received
}
