//! Real Linux TCP as the client, behind a TAP interface. A program of its own: the rigs of a process all start in the network that the first one
//! was started in.

mod served;

use std::net::SocketAddr;

use pagewire_tests::content;
use pagewire_tests::namespace::Namespace;
use pagewire_tests::server::ask;
use served::{PORT, Served, request};

#[test]
fn the_kernel_takes_files_over_both_families_on_many_connections_at_once() {
    let network = Namespace::new(&["10.9.0.1/24", "fd00:9::1/64"]);
    network.enter();
    let directory = content::directory();
    let (path, content) = content::file(directory.path(), 200_001);
    for (own, clients) in [("10.9.0.2/24", 256), ("fd00:9::2/64", 16)] {
        let address = SocketAddr::new(own.split_once('/').unwrap().0.parse().unwrap(), PORT);
        let served = Served::start(format!("sim:e1000,wire=tap:{}", Namespace::TAP), own, &path);
        std::thread::scope(|scope| {
            for number in 0..clients {
                let (content, range) = (&content, number * 10..200_001_u64);
                scope.spawn(move || content::assert_same(&ask(address, &request(range.clone())), &content[range.start as usize..]));
            }
        });
        let report = served.end();
        assert_eq!((report.accepted, report.dropped, report.failed), (clients, 0, 0), "{report:?}");
        let total: u64 = (0..clients).map(|number| 200_001 - number * 10).sum();
        assert_eq!(report.acknowledged, total);
        assert_eq!(report.bytes_gathered + report.bytes_copied, total + report.retransmitted);
        // The partial last page alone, for each.
        assert!(report.bytes_copied >= clients * (200_001 % 4096) && report.copy_reasons.len() == 1, "{report:?}");
    }
}
