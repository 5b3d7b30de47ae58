//! `pagewire serve`, and clients of it: curl, and sockets of the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::command::{Ended, Run, pagewire, run, start};
use crate::process::{self, Signal};
use crate::{PATIENCE, tool, wait_for};

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    run: Run,
    address: SocketAddr,
}

/// What a server said of itself when it was stopped.
#[derive(Debug)]
pub struct Account {
    /// The statistics.
    pub figures: Value,
    /// The lines of the log.
    pub log: Vec<String>,
}

impl Server {
    /// Serves `path` to this host, through the simulator's user network, with further options as on a command line. Nobody else has its address:
    /// that is of this process, and the port of this server.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(path: &Path, options: &str) -> Self {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, 64 + high % 64, middle, low), 20_000 + NUMBER.fetch_add(1, Ordering::Relaxed)));
        let nic = format!("sim:e1000,wire=user,hostfwd=tcp:{address}-:80");
        Self::begin(command(path, &nic, "10.0.2.15/24", options), address)
    }

    /// A server that is started by `command`, see [`command`], and reached at `address`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn begin(command: Command, address: SocketAddr) -> Self {
        let mut run = start(command);
        wait_for("the server", || {
            let up = run.complaints().contains("Ctrl-C ends it").then_some(());
            assert!(up.is_some() || !run.has_ended(), "{}", run.complaints());
            up
        });
        Self { run, address }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.run.pid()
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// curl, quiet but for errors, with arguments as on a command line, for a path.
    pub fn curl(&self, options: &str, path: &str) -> Command {
        let mut curl = Command::new(tool("curl", "curl"));
        // Proxies of the environment are not for addresses of this host.
        curl.args(["-sS", "--noproxy", "*", "-m", "50"]).args(options.split_whitespace()).arg(self.url(path));
        curl
    }

    /// Gets a path with curl, which has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn get(&self, options: &str, path: &str) -> String {
        run(self.curl(options, path)).with_code(0).stdout
    }

    /// A connection.
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// The lines of the log until now.
    pub fn log(&self) -> Vec<String> {
        self.run.complaints().lines().filter(|line| line.contains("] \"")).map(str::to_owned).collect()
    }

    /// Waits until a line of the log has all of `texts`; that line.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_log(&self, texts: &[&str]) -> String {
        wait_for(&format!("{texts:?} in the log"), || self.log().into_iter().find(|line| texts.iter().all(|text| line.contains(text))))
    }

    /// How many descriptors it has open.
    ///
    /// # Panics
    /// When it is gone.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Waits until no connection with it is left on this host, but for those that wait for late packets: the server has heard the end of each.
    ///
    /// # Panics
    /// When one stays.
    pub fn wait_until_idle(&self) {
        let table = if self.address.is_ipv4() { "tcp" } else { "tcp6" };
        let table = format!("/proc/{}/net/{table}", self.pid());
        let address = kernel_s(self.address);
        wait_for("all connections to end", || {
            let lines = std::fs::read_to_string(&table).expect("the kernel's table");
            let open = lines.lines().skip(1).any(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                // Local address, remote address, state: 06 is TIME_WAIT, 0A is LISTEN.
                fields.len() > 3 && fields[1..3].contains(&address.as_str()) && !["06", "0A"].contains(&fields[3])
            });
            (!open).then_some(())
        });
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Panics
    /// When it does not end.
    pub fn interrupt(mut self) -> Ended {
        self.run.signal(Signal::INT);
        self.run.wait()
    }

    /// Waits for its end, which nobody asks for.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(self) -> Ended {
        self.run.wait()
    }

    /// Ends it; what it did.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop(self) -> Account {
        assert!(!process::is_gone(self.pid()), "{}", self.wait().all());
        let ended = self.interrupt().with_code(0);
        Account { figures: ended.json(), log: ended.stderr.lines().filter(|line| line.contains("] \"")).map(str::to_owned).collect() }
    }
}

impl Account {
    /// A number of the statistics, as in `/tcp/failed`.
    ///
    /// # Panics
    /// When it is missing or something else.
    pub fn number(&self, pointer: &str) -> u64 {
        self.figures.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} is no number in {}", self.figures))
    }
}

/// An address as the kernel prints it in its tables: the bytes of each word in the order of the machine.
fn kernel_s(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().expect("4 bytes"))));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// `pagewire serve --json`.
pub fn command(path: &Path, nic: &str, ip: &str, options: &str) -> Command {
    let mut command = pagewire(["serve".as_ref(), path.as_os_str()]);
    command.args(["--nic", nic, "--ip", ip, "--json"]).args(options.split_whitespace());
    command
}

/// A client that is a socket.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub socket: TcpStream,
    /// What was read and not taken.
    ahead: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole header.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When that does not succeed.
    pub fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self { socket, ahead: Vec::new() }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("a connection");
    }

    /// Sends a GET.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }

    /// Reads an answer that has a Content-Length.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    pub fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "the connection ended after {:?}", String::from_utf8_lossy(&self.ahead));
        };
        let head = String::from_utf8(self.ahead.drain(..end).collect()).expect("text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        while self.ahead.len() < length {
            assert!(self.more(), "the connection ended after {} of {length} bytes", self.ahead.len());
        }
        Answer { status, head, body: self.ahead.drain(..length).collect() }
    }

    /// Whether the server has closed or reset the connection, with nothing before that.
    pub fn is_ended(&mut self) -> bool {
        self.ahead.is_empty() && !self.more()
    }

    /// Reads all that comes. The number of bytes.
    pub fn drain(&mut self) -> u64 {
        let mut bytes = self.ahead.len() as u64;
        loop {
            self.ahead.clear();
            if !self.more() {
                return bytes;
            }
            bytes += self.ahead.len() as u64;
        }
    }

    /// Closes it with a reset, as a program that crashes does.
    ///
    /// # Panics
    /// When the socket has no such option.
    pub fn crash(self) {
        rustix::net::sockopt::set_socket_linger(&self.socket, Some(std::time::Duration::ZERO)).expect("an option of every socket");
    }

    /// Reads something; false at the end, which may be a reset.
    fn more(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        let len = match self.socket.read(&mut chunk) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came: {error}"),
        };
        self.ahead.extend_from_slice(&chunk[..len]);
        len > 0
    }
}
