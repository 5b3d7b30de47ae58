//! `pagewire serve` with many clients: load generators, parallel downloads, and the Linux kernel as the other end.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use pagewire_tests::command::run;
use pagewire_tests::namespace::Namespace;
use pagewire_tests::web::{self, Server};
use pagewire_tests::{content, tool};

/// The network that the kernel is the other end of, with this thread in it.
fn network(address: &str) -> Namespace {
    // Nothing can be installed from there.
    for (program, package) in [("curl", "curl"), ("ab", "apache2-utils"), ("wrk", "wrk")] {
        tool(program, package);
    }
    let network = Namespace::new(&[address]);
    network.enter();
    network
}

/// A server on its TAP interface.
fn on_tap(path: &Path, ip: &str, options: &str) -> Server {
    let nic = format!("sim:e1000,wire=tap:{}", Namespace::TAP);
    let (address, _) = ip.split_once('/').expect("a prefix");
    Server::begin(web::command(path, &nic, ip, options), SocketAddr::new(address.parse().expect("an address"), 80))
}

/// Bytes as they are downloaded, in a directory of their own.
struct Downloads {
    directory: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Downloads {
    fn new(count: usize) -> Self {
        let directory = content::directory();
        fs::create_dir(directory.path().join("site")).expect("a directory");
        let files = (0..count).map(|number| content::file(&directory.path().join("site"), 100_000 + 1111 * number)).collect();
        Self { directory, files }
    }

    fn site(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    /// curl that gets all of them at once.
    fn curl(&self, server: &Server) -> Command {
        let mut curl = Command::new(tool("curl", "curl"));
        let at_once = self.files.len().to_string();
        curl.args("-sS --noproxy * -m 50 -f -Z --parallel-immediate --parallel-max".split(' ')).arg(at_once);
        curl.args(["--remote-name-all", "--output-dir"]).arg(self.directory.path());
        curl.args(self.files.iter().map(|(path, _)| server.url(&format!("/{}", path.file_name().expect("a name").display()))));
        curl
    }

    fn are_whole(&self) {
        for (path, sent) in &self.files {
            let got = self.directory.path().join(path.file_name().expect("a name"));
            content::assert_same(&fs::read(got).expect("the download"), sent);
        }
    }
}

/// QEMU's user network has a queue of one for connections that it has not taken yet, so what comes beyond is asked to try again later. These are
/// as many as it takes at once even on a busy machine.
const FEW: usize = 4;

#[test]
fn downloads_at_once_through_the_user_network_are_all_whole() {
    let downloads = Downloads::new(FEW);
    let server = Server::start(&downloads.site(), "");
    let _ = run(downloads.curl(&server)).with_code(0);
    downloads.are_whole();
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!((account.number("/http/responses/200"), account.number("/connected")), (FEW as u64, 0), "{}", account.figures);
}

#[test]
fn sixty_four_downloads_at_once_are_all_whole_though_few_of_them_fit_into_the_windows() {
    let _network = network("10.9.0.1/24");
    let downloads = Downloads::new(64);
    let server = on_tap(&downloads.site(), "10.9.0.2/24", "--window-budget 1MiB");
    let _ = run(downloads.curl(&server)).with_code(0);
    downloads.are_whole();
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!(account.number("/http/responses/200"), 64);
    assert!(account.number("/tcp/windows/evicted") > 0, "{}", account.figures);
    assert_eq!((account.number("/connected"), account.number("/http/cut_off")), (0, 0), "{}", account.figures);
}

/// A number that a program printed behind a name at the start of a line.
fn figure(said: &str, name: &str) -> u64 {
    let value = said.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().split(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {said}"))
}

fn ab(server: &Server, options: &str) -> Command {
    let mut ab = Command::new(tool("ab", "apache2-utils"));
    ab.args(["-q", "-s", "60"]).args(options.split_whitespace()).arg(server.url("/10000.bin"));
    ab
}

/// What ab said of requests of which none failed.
fn without_failures(said: &str, requests: u64) {
    assert_eq!((figure(said, "Complete requests:"), figure(said, "Failed requests:")), (requests, 0), "{said}");
    assert_eq!(figure(said, "HTML transferred:"), requests * 10_000, "{said}");
}

#[test]
fn ab_has_no_failed_request_through_the_user_network() {
    let directory = content::directory();
    content::file(directory.path(), 10_000);
    let server = Server::start(directory.path(), "--quiet");
    let said = run(ab(&server, &format!("-k -c {FEW} -n 2000"))).with_code(0).stdout;
    without_failures(&said, 2000);
    assert_eq!(figure(&said, "Keep-Alive requests:"), 2000);
    without_failures(&run(ab(&server, &format!("-c {FEW} -n 200"))).with_code(0).stdout, 200);
    server.wait_until_idle();
    let account = server.stop();
    // It may have begun some more than it counts.
    assert!(account.number("/http/responses/200") >= 2200, "{}", account.figures);
    assert_eq!(account.number("/connected"), 0, "{}", account.figures);
}

#[test]
fn ab_and_wrk_with_64_clients_have_no_failed_request() {
    let _network = network("10.9.0.1/24");
    let directory = content::directory();
    content::file(directory.path(), 10_000);
    let server = on_tap(directory.path(), "10.9.0.2/24", "--quiet");
    for (options, requests) in [("-k", 5000), ("", 1000)] {
        let said = run(ab(&server, &format!("{options} -c 64 -n {requests}"))).with_code(0).stdout;
        without_failures(&said, requests);
    }
    let mut wrk = Command::new(tool("wrk", "wrk"));
    wrk.args(["-t", "1", "-c", "64", "-d", "2", "--timeout", "30"]).arg(server.url("/10000.bin"));
    let said = run(wrk).with_code(0).stdout;
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let requests: u64 = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok()).expect("a number");
    server.wait_until_idle();
    let account = server.stop();
    assert!(requests > 100 && account.number("/http/responses/200") >= 6000 + requests, "{said} {}", account.figures);
    assert_eq!(account.number("/connected"), 0, "{}", account.figures);
}

#[test]
fn two_hundred_and_fifty_six_connections_of_the_kernel_are_served_at_once() {
    let _network = network("10.9.0.1/24");
    let directory = content::directory();
    let (_, sent) = content::file(directory.path(), 200_001);
    let server = on_tap(directory.path(), "10.9.0.2/24", "");
    let mut clients = (0..256).map(|_| server.connect()).collect::<Vec<_>>();
    clients.iter_mut().for_each(|client| client.ask("/200001.bin"));
    for client in &mut clients {
        content::assert_same(&client.answer().body, &sent);
    }
    // All of them are still connected. Half of them crash, half of them go.
    let mut crash = false;
    for client in clients {
        crash = !crash;
        if crash {
            client.crash();
        }
    }
    // Whatever the others have left behind, the next one is served.
    let mut last = server.connect();
    last.ask("/200001.bin");
    content::assert_same(&last.answer().body, &sent);
    drop(last);
    server.wait_until_idle();
    assert!(server.descriptors() < 64, "{} descriptors for one file and no client", server.descriptors());
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!((account.number("/http/clients"), account.number("/http/responses/200")), (257, 257));
    assert_eq!((account.number("/connected"), account.number("/http/cut_off")), (0, 0), "{}", account.figures);
}

#[test]
fn curl_downloads_over_ipv6() {
    let _network = network("fd00:9::1/64");
    let directory = content::directory();
    let (_, sent) = content::file(directory.path(), 2_000_001);
    let server = on_tap(directory.path(), "fd00:9::2/64", "");
    let output = directory.path().join("got");
    let curl = server.curl(&format!("-g -f -o {}", output.display()), "/2000001.bin");
    let _ = run(curl).with_code(0);
    content::assert_same(&fs::read(&output).expect("the download"), &sent);
    server.wait_until_idle();
    let account = server.stop();
    assert!(account.log[0].starts_with("fd00:9::1 - - ["), "{:?}", account.log);
}
