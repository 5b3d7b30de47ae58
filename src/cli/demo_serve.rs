//! The second part of `pagewire demo`: the file over HTTP, from a second simulated NIC to an ordinary TCP client, which is a socket of this
//! process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use hw_sim::rig::{Rig, RigConfig};
use hw_sim::wire::{ForwardProtocol, HostForward, HostWire};
use pagewire::device::{self, DriverOptions, OpenOptions, SimulatedAddress};
use pagewire::http::{Server, ServerConfig, Site};
use pagewire::net::Interface;
use pagewire::receive::hex;
use pagewire::send::{Port, PortConfig, Wait};
use pagewire::tcp::{self, Stack, StackConfig, StackReport};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Failure, table};

/// The port that the server has on its NIC.
const HTTP: u16 = 80;
/// How long the client waits for the next bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A NIC on QEMU's user network that is ready, and where it is reached from this host.
pub struct Ready {
    port: Port,
    rig: Rig,
    address: SocketAddr,
}

/// What was served, and what the client got.
#[derive(Serialize)]
pub struct Served {
    pub url: String,
    /// Bytes that the client got, and in what time, from the first to the last of them.
    downloaded: u64,
    seconds: f64,
    pub sha256_downloaded: String,
    #[serde(flatten)]
    tcp: StackReport,
}

/// Starts a NIC like the one at `simulated`. A text for an error, since this may be done in a thread.
pub fn prepare(simulated: &SimulatedAddress, driver: DriverOptions) -> Result<Ready, String> {
    start(simulated, driver).map_err(|failure| failure.to_string())
}

fn start(simulated: &SimulatedAddress, driver: DriverOptions) -> Result<Ready, Failure> {
    // A port that was free a moment ago.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let forward = HostForward {
        protocol: ForwardProtocol::Tcp,
        host_address: Some(Ipv4Addr::LOCALHOST),
        host_port: address.port(),
        device_address: None,
        device_port: HTTP,
    };
    let wire = HostWire::User { forwards: vec![forward] }.into();
    let rig = Rig::start(RigConfig { wire, pcap: None, ..simulated.rig() })?;
    let nic = device::start(rig.device()?, false, driver, OpenOptions::default())?;
    let interface = Interface::new(nic.mac(), "10.0.2.15/24".parse()?, None, 1500, None)?;
    let mut port = Port::new(nic, interface, PortConfig::default())?;
    port.announce()?;
    Ok(Ready { port, rig, address })
}

impl Ready {
    /// Serves the file at `path` until a client has it; `None` when `stop` was set before.
    pub fn serve(self, path: &Path, stop: &AtomicBool) -> Result<Option<Served>, Failure> {
        let Self { port, rig, address } = self;
        let site = Site::open(path)?;
        let target = site.file_path().ok_or("a directory")?;
        let url = format!("http://{address}{target}");
        let mut stack = Stack::new(port, StackConfig::default())?;
        let listener = stack.listen(HTTP, 16)?;
        let mut server = Server::new(site, listener, ServerConfig::default());
        let client = std::thread::spawn(move || download(address, &target));
        let served = tcp::run(&mut stack, Wait::default(), stop, |stack, now| {
            server.serve(stack, now, SystemTime::now(), drop);
            // The client has everything before its last acknowledgement is here.
            let over = client.is_finished() && server.clients() == 0;
            if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let tcp = stack.report();
        // Without its NIC the client ends, whatever it waits for.
        drop((stack, rig));
        let downloaded = client.join().map_err(|_| "the client panicked")?;
        if served?.is_none() {
            return Ok(None);
        }
        let Download { bytes, time, sha256 } = downloaded?;
        Ok(Some(Served { url, downloaded: bytes, seconds: time.as_secs_f64(), sha256_downloaded: sha256, tcp }))
    }
}

impl Served {
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("downloaded", table::bytes(self.downloaded))];
        rows.extend(table::stack_rows(&self.tcp));
        rows.push(("time", format!("{:.3} s, {}", self.seconds, table::rate(self.downloaded as f64 * 8.0 / self.seconds))));
        rows.push(("sha256 downloaded", self.sha256_downloaded.clone()));
        rows
    }
}

struct Download {
    bytes: u64,
    time: Duration,
    sha256: String,
}

/// Gets a file as any client does.
fn download(address: SocketAddr, target: &str) -> Result<Download, String> {
    let fail = |error: std::io::Error| format!("the client of http://{address}{target}: {error}");
    let mut connection = TcpStream::connect(address).map_err(fail)?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    write!(connection, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(fail)?;
    let mut answer = BufReader::with_capacity(256 << 10, connection);
    let (mut head, mut length) = (String::new(), None);
    loop {
        let start = head.len();
        answer.read_line(&mut head).map_err(fail)?;
        match head[start..].trim_end() {
            "" => break,
            line => length = line.strip_prefix("Content-Length: ").and_then(|length| length.parse::<u64>().ok()).or(length),
        }
    }
    let length = length.filter(|_| head.starts_with("HTTP/1.1 200 ")).ok_or_else(|| format!("the server answered {head:?}"))?;
    // From the first byte: before, the simulated receiver had to wake up.
    let (begin, mut hash, mut bytes) = (Instant::now(), Sha256::new(), 0);
    let mut block = vec![0; 256 << 10];
    while bytes < length {
        match answer.read(&mut block).map_err(fail)? {
            0 => return Err(format!("the connection ended after {bytes} of {length} bytes")),
            len => {
                hash.update(&block[..len]);
                bytes += len as u64;
            }
        }
    }
    Ok(Download { bytes, time: begin.elapsed(), sha256: hex(&hash.finalize()) })
}
