//! `pagewire serve`: a directory over HTTP.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use pagewire::http::{Access, Server, ServerConfig, ServerReport, Site};
use pagewire::send::SendError;
use pagewire::tcp::{self, Stack, StackConfig, StackReport, TcpConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::port::PortArgs;
use super::{Failure, Outcome, print, print_json, stop_flag, table};

/// Serve the files of a directory, or one file, over HTTP/1.1, straight from the page cache
#[derive(Args)]
#[command(after_help = "\
Examples:
  To this host, through a simulated NIC; no root, no hardware:
    pagewire serve films --nic sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80 --ip 10.0.2.15/24
    curl -O http://127.0.0.1:8080/film.mkv
  One file, and nothing else of its directory:
    pagewire serve films/film.mkv --nic sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80 --ip 10.0.2.15/24
  From a real NIC:
    pagewire serve films --nic pci:0000:03:00.0 --ip 192.0.2.10/24 --gateway 192.0.2.1

GET and HEAD, ranges, conditional requests, index.html or a list of the directory. Nothing outside the directory can be had: no `..`, no link that
leads out. A file that changes while it is sent ends its connection, so that nobody takes a part for the whole. Everyone who reaches the address
can read: there are no passwords and no encryption.

It prints a line for every answer, in the common log format, then the seconds that it took, and `cut off:` with the reason where the client did not
get all of it. It runs until Ctrl-C, resets the connections that are open, and prints what it did.

Exit status: 0 stopped; 1 failed; 2 wrong arguments.")]
pub struct Serve {
    /// The directory, or the file
    path: PathBuf,

    #[command(flatten)]
    port: PortArgs,

    /// The TCP port
    #[arg(long = "port", value_name = "PORT", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    tcp_port: u16,

    /// Clients that are served at once; others wait
    #[arg(long, value_name = "CLIENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// How long a request may take, from its first byte (or the connection's start) to its last; then it is answered with 408
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    request_timeout: Duration,

    /// How long a connection is kept for another request
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    keep_alive: Duration,

    /// How long a client may take for the next 64 KiB of an answer before it is cut off
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    stall_timeout: Duration,

    /// Do not print a line for every answer
    #[arg(long)]
    quiet: bool,

    /// Print the statistics at the end as one line of JSON, and the lines for answers to the error stream
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give seconds, from 0.001 to 86400".into())
}

/// What was done.
#[derive(Serialize)]
struct Statistics<'s> {
    seconds: f64,
    /// Clients that were connected in the end, and were reset.
    connected: usize,
    http: &'s ServerReport,
    tcp: &'s StackReport,
}

impl Serve {
    pub fn run(self) -> Result<Outcome, Failure> {
        // What can be wrong without a NIC is found out before one is started.
        let site = Site::open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let path = site.file_path().unwrap_or_else(|| "/".into());
        allow_files();
        let stop = stop_flag()?;
        let (mut port, rig) = self.port.open(&stop)?;
        // Whoever wants to speak to us need not ask first: the simulated receiver hears a question only after a second.
        port.announce()?;
        let clients = self.clients as usize;
        // The server has a bound of its own for everything that a client may take long for.
        let idle = self.request_timeout.max(self.keep_alive).max(self.stall_timeout) + TcpConfig::default().user_timeout;
        let config = StackConfig {
            tcp: TcpConfig { idle_timeout: Some(idle), ..TcpConfig::default() },
            burst: self.port.burst(),
            // Those that were left wait for late packets.
            connections: clients + clients / 2 + 64,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(port, config)?;
        let listener = stack.listen(self.tcp_port, 1024.min(clients))?;
        let config = ServerConfig {
            clients,
            request_timeout: self.request_timeout,
            keep_alive: self.keep_alive,
            stall_timeout: self.stall_timeout,
            stability: self.port.stability(),
        };
        let mut server = Server::new(site, listener, config);
        complain(format!(
            "serving {} at http://{}{path} ({}); Ctrl-C ends it",
            self.path.display(),
            host(stack.interface().address().address(), self.tcp_port),
            self.port.nic
        ));
        let mut printed = Ok(());
        let mut log = |access: Access, wall| {
            if self.quiet {
                return;
            }
            let line = log_line(&access, wall);
            if self.json {
                complain(line);
            } else if printed.is_ok() {
                printed = print(&format!("{line}\n"));
            }
        };
        let mut seconds = Duration::ZERO;
        let ended: Result<Option<()>, SendError> = tcp::run(&mut stack, self.port.wait(), &stop, |stack, now| {
            let wall = SystemTime::now();
            server.serve(stack, now, wall, |access| log(access, wall));
            seconds = now;
            ControlFlow::Continue(())
        });
        let (connected, tcp) = (server.clients(), stack.report());
        let wall = SystemTime::now();
        server.stop(&mut stack, seconds, wall, |access| log(access, wall));
        if ended.is_ok() {
            take_leave(&mut stack, seconds)?;
            rig.map_or(Ok(()), |rig| rig.drain())?;
        }
        let statistics = Statistics { seconds: seconds.as_secs_f64(), connected, http: server.report(), tcp: &tcp };
        if self.json {
            print_json(&statistics)?;
        } else {
            print(&table::render(&rows(&statistics)))?;
        }
        printed?;
        match ended {
            Err(error) if error.is_stopped() => Ok(Outcome::Interrupted),
            ended => ended.map(|_| Outcome::Done).map_err(Failure::from),
        }
    }
}

fn complain(line: String) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Every file on its way takes two descriptors: as many as the system lets us have without asking.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where that fails, the few that there are have to do: who finds none is asked to come again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How long the last words may take.
const LEAVE: Duration = Duration::from_secs(1);

/// Sends what there is still to be said: resets.
fn take_leave(stack: &mut Stack, now: Duration) -> Result<(), SendError> {
    let start = Instant::now();
    loop {
        stack.poll(now + start.elapsed())?;
        if stack.is_quiet() || start.elapsed() > LEAVE {
            return Ok(());
        }
    }
}

fn host(address: std::net::IpAddr, port: u16) -> String {
    match (address, port) {
        (std::net::IpAddr::V6(address), 80) => format!("[{address}]"),
        (address, 80) => address.to_string(),
        (address, port) => std::net::SocketAddr::from((address, port)).to_string(),
    }
}

/// The common log format of web servers, with what went wrong behind it.
fn log_line(access: &Access, wall: SystemTime) -> String {
    let Access { client, entry, seconds, failed } = access;
    // Fri, 20 Nov 2026 18:46:10 GMT
    let date = httpdate::fmt_http_date(wall);
    let date = match date.split(' ').collect::<Vec<_>>()[..] {
        [_, day, month, year, time, _] => format!("{day}/{month}/{year}:{time} +0000"),
        _ => date,
    };
    // A request may have any bytes in it.
    let request = entry.request.escape_debug();
    let failed = failed.as_ref().map_or_else(String::new, |why| format!(" cut off: {why}"));
    format!("{} - - [{date}] \"{request}\" {} {} {seconds:.3}{failed}", client.ip(), entry.status, entry.bytes)
}

fn rows(Statistics { seconds, connected, http, tcp }: &Statistics<'_>) -> Vec<(&'static str, String)> {
    let responses: Vec<String> = http.responses.iter().map(|(status, count)| format!("{status}: {}", table::grouped(*count))).collect();
    let mut rows = vec![
        ("clients", format!("{}, {} of them connected in the end", table::grouped(http.clients), table::grouped(*connected as u64))),
        ("responses", if responses.is_empty() { "none".into() } else { responses.join(", ") }),
        ("cut off", table::grouped(http.cut_off)),
        ("bodies", table::bytes(http.body_bytes)),
    ];
    rows.extend(table::stack_rows(tcp));
    rows.push(("time", format!("{seconds:.1} s")));
    rows
}
