//! Files to Linux' own TCP over a cable that loses, delays, doubles and reorders frames, both ways of opening a connection.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hw_sim::wire::Impairment;
use pagewire_tests::cable::{Cable, Plug};
use pagewire_tests::command::{run, send};
use pagewire_tests::namespace::Namespace;
use pagewire_tests::server;
use pagewire_tests::web::{self, Server};
use pagewire_tests::{content, wait_for};

const MS: Duration = Duration::from_millis(1);
/// The kernel's address, its prefix, and the NIC's.
type Family = (&'static str, &'static str, &'static str);
const IPV4: Family = ("10.9.0.1", "24", "10.9.0.2/24");
const IPV6: Family = ("fd00:9::1", "64", "fd00:9::2/64");
const SIZES: [usize; 3] = [1, 100_001, 4 << 20];

/// A path of 4 ms there and back.
fn path() -> Impairment {
    Impairment { delay: 2 * MS, ..Impairment::default() }
}

/// Everything on a NIC: to clients that open the connection, and to a server. Each NIC has a kernel and a cable of its own.
fn arrives(model: &str, (kernel, prefix, own): Family, impairment: Impairment, seed: u64) {
    let (network, directory) = (Namespace::new(&[&format!("{kernel}/{prefix}")]), content::directory());
    let files = SIZES.map(|len| content::file(directory.path(), len));

    let (plug, nic) = Plug::nic(directory.path(), model);
    let cable = Cable::between([plug, network.plug()], [impairment; 2], seed);
    let served = downloads(&network, directory.path(), &nic, own, &files.each_ref().map(|(path, content)| (path.as_path(), &content[..])));
    let [there, _] = cable.end();
    // Which frames of a seed are lost is fixed by their order, and there are thousands.
    if impairment.loss > 0 {
        assert!(there.lost() > 0 && served > 0, "{model}: {there:?}, {served} bytes sent again");
    }

    for (number, (path, content)) in (1..).zip(&files) {
        let sockets = content::directory();
        let (plug, nic) = Plug::nic(sockets.path(), model);
        let _cable = Cable::between([plug, network.plug()], [impairment; 2], seed + number);
        let server = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                network.enter();
                server::Server::start_at(SocketAddr::new(kernel.parse().expect("an address"), 0))
            });
            inside.join().expect("a server")
        });
        let target = SocketAddr::new(kernel.parse().expect("an address"), server.port);
        let figures = run(send(path, &nic, &format!("tcp://{target}"), &format!("--ip {own}"))).sent();
        content::assert_same(&server.received(), content);
        assert_eq!(figures.0["tcp"]["acknowledged"], content.len());
    }
}

/// Downloads each file with curl. How many bytes were sent again.
fn downloads(network: &Namespace, directory: &Path, nic: &str, own: &str, files: &[(&Path, &[u8])]) -> u64 {
    let address = SocketAddr::new(own.split_once('/').expect("a prefix").0.parse().expect("an address"), 80);
    let server = Server::begin(web::command(directory, nic, own, ""), address);
    for (path, content) in files {
        let (name, copy) = (path.file_name().and_then(|name| name.to_str()).expect("a name"), directory.join("copy"));
        let curl = server.curl(&format!("-f -o {}", copy.display()), &format!("/{name}"));
        let _ = run(network.inside(&curl)).with_code(0);
        content::assert_same(&std::fs::read(&copy).expect("the download"), content);
    }
    // Each has a line as soon as the last byte of it is known to have arrived.
    wait_for("the log", || (server.log().len() == files.len()).then_some(()));
    let account = server.stop();
    assert_eq!((account.number("/tcp/failed"), account.number("/http/cut_off")), (0, 0), "{}", account.figures);
    account.number("/tcp/retransmitted")
}

fn arrives_on_all(family: Family, impairment: Impairment, seed: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| arrives("e1000", family, impairment, seed));
        scope.spawn(|| arrives("virtio-net", family, impairment, seed + 100));
    });
}

#[test]
fn one_frame_in_a_hundred_is_lost() {
    arrives_on_all(IPV4, Impairment { loss: 10_000, ..path() }, 1);
}

#[test]
fn one_frame_in_twenty_is_lost() {
    arrives_on_all(IPV4, Impairment { loss: 50_000, ..path() }, 2);
}

#[test]
fn frames_come_out_of_order_and_twice() {
    arrives_on_all(IPV4, Impairment { jitter: 4 * MS, duplication: 20_000, ..path() }, 3);
}

#[test]
fn frames_are_lost_doubled_late_and_out_of_order() {
    arrives_on_all(IPV4, Impairment { delay: 10 * MS, jitter: 5 * MS, duplication: 10_000, loss: 5_000, ..path() }, 4);
}

#[test]
fn the_same_goes_for_ipv6() {
    arrives_on_all(IPV6, Impairment { jitter: 2 * MS, loss: 20_000, ..path() }, 5);
}
