//! `pagewire serve`: a directory over HTTP.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use pagewire::http::{Access, Server, ServerConfig, ServerReport, Site};
use pagewire::send::SendError;
use pagewire::tcp::{self, Stack, StackConfig, StackReport};
use serde::Serialize;

use super::port::PortArgs;
use super::{Failure, Outcome, print, print_json, stop_flag, table};

/// Serve the files of a directory over HTTP/1.1, straight from the page cache
#[derive(Args)]
#[command(after_help = "\
Examples:
  To this host, through a simulated NIC; no root, no hardware:
    pagewire serve films --nic sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80 --ip 10.0.2.15/24
    curl -O http://127.0.0.1:8080/film.mkv
  From a real NIC:
    pagewire serve films --nic pci:0000:03:00.0 --ip 192.0.2.10/24 --gateway 192.0.2.1

GET and HEAD, ranges, conditional requests, index.html or a list of the directory. Nothing outside the directory can be had: no `..`, no link that
leads out. A file that changes while it is sent ends its connection, so that nobody takes a part for the whole.

It runs until Ctrl-C, and then prints what it did. Exit status: 0 stopped; 1 failed; 2 wrong arguments.")]
pub struct Serve {
    /// The directory
    directory: PathBuf,

    #[command(flatten)]
    port: PortArgs,

    /// The TCP port
    #[arg(long = "port", value_name = "PORT", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    tcp_port: u16,

    /// Clients that are served at once; others wait
    #[arg(long, value_name = "CLIENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// Do not print a line for every request
    #[arg(long)]
    quiet: bool,

    /// Print the statistics at the end as one line of JSON, and the lines for requests to the error stream
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Serialize)]
struct Statistics<'s> {
    seconds: f64,
    http: &'s ServerReport,
    tcp: &'s StackReport,
}

impl Serve {
    pub fn run(self) -> Result<Outcome, Failure> {
        // What can be wrong without a NIC is found out before one is started.
        let site = Site::open(&self.directory).map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let stop = stop_flag()?;
        let (port, _rig) = self.port.open()?;
        let clients = self.clients as usize;
        let config = StackConfig { burst: self.port.burst(), connections: clients + clients / 2 + 64, ..StackConfig::default() };
        let mut stack = Stack::new(port, config)?;
        let listener = stack.listen(self.tcp_port, 1024.min(clients))?;
        let mut server = Server::new(site, listener, ServerConfig { clients, stability: self.port.stability(), ..ServerConfig::default() });
        let complain = |line: String| drop(writeln!(io::stderr(), "{line}"));
        complain(format!(
            "serving {} at http://{}/ ({}); Ctrl-C ends it",
            self.directory.display(),
            host(stack.interface().address().address(), self.tcp_port),
            self.port.nic
        ));
        let mut seconds = 0.0;
        let mut printed = Ok(());
        let ended: Result<Option<()>, SendError> = tcp::run(&mut stack, self.port.wait(), &stop, |stack, now| {
            let wall = SystemTime::now();
            server.serve(stack, now, wall, |access| {
                if self.quiet {
                    return;
                }
                let line = log_line(&access, wall);
                if self.json {
                    complain(line);
                } else if printed.is_ok() {
                    printed = print(&format!("{line}\n"));
                }
            });
            seconds = now.as_secs_f64();
            ControlFlow::Continue(())
        });
        let tcp = stack.report();
        let statistics = Statistics { seconds, http: server.report(), tcp: &tcp };
        if self.json {
            print_json(&statistics)?;
        } else {
            print(&table::render(&rows(&statistics)))?;
        }
        ended?;
        printed?;
        Ok(Outcome::Done)
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

fn rows(Statistics { seconds, http, tcp }: &Statistics<'_>) -> Vec<(&'static str, String)> {
    let responses: Vec<String> = http.responses.iter().map(|(status, count)| format!("{status}: {}", table::grouped(*count))).collect();
    let mut rows = vec![
        ("clients", table::grouped(http.clients)),
        ("responses", if responses.is_empty() { "none".into() } else { responses.join(", ") }),
        ("cut off", table::grouped(http.cut_off)),
        ("bodies", table::bytes(http.body_bytes)),
    ];
    rows.extend(table::stack_rows(tcp));
    rows.push(("time", format!("{seconds:.1} s")));
    rows
}
