//! A device that asks for a reset while connections send.

use std::time::Duration;

use hal::Nic;
use hw_sim::model::virtio::{Fault, Features, ModelConfig, VirtioNetModel};
use smoltcp::socket::tcp;
use virtio_net::{VirtioNet, VirtioNetConfig};

use super::bench::{Bench, file, serve, shared};
use crate::net::Interface;
use crate::send::{PortConfig, Stability};
use crate::tcp::StackConfig;

#[test]
fn connections_outlive_a_reset_of_the_device_and_send_again_what_was_lost() {
    const LEN: u64 = 1_000_000;
    let (path, content) = file(LEN as usize);
    let file = shared(&path, Stability::Auto);
    for features in [Features::USUAL, Features::USUAL | Features::RING_PACKED] {
        let model = VirtioNetModel::with(ModelConfig { features, ..ModelConfig::default() });
        // It works inside the doorbell, so that it answers the commands of a reset too.
        model.set_synchronous(true);
        let nic = VirtioNet::start(model.transport(), VirtioNetConfig::default()).unwrap();
        let (port, config) = (PortConfig::default(), StackConfig::default());
        let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, None).unwrap();
        let mut bench = Bench::on(model, Box::new(nic), interface, port, config, "192.0.2.2");
        let client = bench.open(65_536);
        let mut program = serve(|stack, socket| {
            socket.sendfile(stack, &file, 0..LEN).unwrap();
        });
        for resets in 1..=3 {
            bench.model.set_fault(Fault::NeedsResetAfter(5));
            bench.run_until(Duration::from_secs(60), &mut program, |bench| {
                bench.stack.check(bench.now).unwrap();
                bench.stack.report().resets == resets
            });
        }
        bench.run_until(Duration::from_secs(60), &mut program, |bench| {
            let socket = bench.peer_socket(client);
            !socket.may_recv() && !matches!(socket.state(), tcp::State::SynSent)
        });
        assert!(bench.received(client) == content);
        let report = bench.stack.report();
        assert!(report.resets == 3 && report.frames_lost >= 3 && report.retransmitted > 0, "{report:?}");
        bench.assert_clean();
    }
}
