//! Connections in a VLAN whose tag the NIC does not insert.

use e1000::{E1000, E1000Config};
use hal::{Nic, OffloadFlags};
use hw_sim::model::Model;
use hw_sim::model::e1000::E1000Model;
use hw_sim::model::virtio::{ModelConfig, VirtioNetModel};
use virtio_net::{VirtioNet, VirtioNetConfig};

use super::bench::{Bench, file, serve, shared};
use crate::net::Interface;
use crate::send::{PortConfig, Stability};
use crate::tcp::StackConfig;

const LEN: u64 = 300_001;

/// A file is downloaded. Every frame has to have the tag, and right checksums behind it.
fn downloaded<M: Model>(model: M, nic: Box<dyn Nic>, own: &str, peer: &str) {
    let (path, content) = file(LEN as usize);
    let file = shared(&path, Stability::Auto);
    assert!(!nic.capabilities().offloads.contains(OffloadFlags::VLAN_TAG));
    let interface = Interface::new(nic.mac(), own.parse().unwrap(), None, 1500, Some(100)).unwrap();
    let mut bench = Bench::on(model, nic, interface, PortConfig::default(), StackConfig::default(), peer);
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..LEN).unwrap();
    }));
    assert!(received == content);
    assert_eq!(report.tags_written, report.frames);
    bench.assert_clean();
}

#[test]
fn the_tag_stands_in_front_of_what_the_nic_cuts_and_sums_and_of_what_is_done_here() {
    for (own, peer) in [("192.0.2.1/24", "192.0.2.2"), ("fd00::1/64", "fd00::2")] {
        for offloads in [OffloadFlags::all(), OffloadFlags::empty()] {
            let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
            let config = E1000Config { vlan: false, offloads, ..E1000Config::default() };
            let nic = E1000::start(model.device(), config).unwrap();
            downloaded(model, Box::new(nic), own, peer);
            let model = VirtioNetModel::with(ModelConfig::default());
            model.set_synchronous(true);
            let nic = VirtioNet::start(model.transport(), VirtioNetConfig { offloads, ..VirtioNetConfig::default() }).unwrap();
            downloaded(model, Box::new(nic), own, peer);
        }
    }
}
