//! What a device asks for in the middle of a send: a reset, and an announcement.

use hw_sim::model::virtio::{Fault, Features, ModelConfig, VirtioNetModel};
use virtio_net::{VirtioNet, VirtioNetConfig};

use super::*;

/// A port on a device that works inside the doorbell, so that it answers the commands of a reset too.
fn port(features: Features) -> (VirtioNetModel, Port) {
    let model = VirtioNetModel::with(ModelConfig { features, ..ModelConfig::default() });
    model.set_synchronous(true);
    let nic = VirtioNet::start(model.transport(), VirtioNetConfig::default()).unwrap();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, None).unwrap();
    (model, Port::new(Box::new(nic), interface, PortConfig::default()).unwrap())
}

/// Takes the steps of a send, as [`Bench::run_with`]. Returns the report, and what the datagrams carried.
fn run(
    model: &VirtioNetModel,
    port: &mut Port,
    source: Source,
    options: UdpOptions,
    mut meanwhile: impl FnMut(&VirtioNetModel),
) -> (Report, Vec<Vec<u8>>) {
    let (mut now, mut datagrams) = (Duration::ZERO, Vec::new());
    let mut send = UdpSend::new(port, source, options, now).unwrap();
    loop {
        assert!(now < Duration::from_secs(600), "the send does not end");
        meanwhile(model);
        let step = send.step(now);
        datagrams.extend(model.step().iter().map(|frame| frame[wire::check(frame).unwrap().payload].to_vec()));
        let failed = match step {
            Ok(Step::Done) => return (send.finish(now), datagrams),
            Ok(Step::Busy) => None,
            Ok(Step::Idle { .. }) => send.check(now).err(),
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            return (send.fail(now, error), datagrams);
        }
        now += Duration::from_micros(50);
    }
}

#[test]
fn a_device_that_asks_for_a_reset_gets_it_and_what_is_lost_is_told() {
    let (path, content) = file(1 << 20);
    for features in [Features::USUAL, Features::USUAL | Features::RING_PACKED] {
        let (model, mut port) = port(features);
        for _ in 0..2 {
            model.set_fault(Fault::NeedsResetAfter(300));
            let mut asked = false;
            let source = Source::open(&path).unwrap();
            let (report, datagrams) = run(&model, &mut port, source, Bench::gathering(), |model| asked |= model.status() & 64 != 0);
            assert!(asked);
            assert_eq!((&report.stopped, report.resets, report.bytes), (&Stop::Complete, 1, 1 << 20));
            // What is not lost is whole and in order, at both sides of the gap.
            assert!(report.frames_lost >= 1 && report.frames == report.frames_lost + datagrams.len() as u64, "{report:?}");
            let (before, after) = datagrams.split_at(300);
            assert!(before.concat() == content[..300 * 1472]);
            assert!(content.ends_with(&after.concat()) && !after.is_empty());
        }
        let (report, datagrams) = run(&model, &mut port, Source::open(&path).unwrap(), Bench::gathering(), |_| ());
        assert_eq!((report.resets, report.frames_lost), (0, 0));
        assert!(datagrams.concat() == content);
        assert_eq!((model.violations(), model.faulted_accesses()), (Vec::<String>::new(), Vec::new()));
    }
}

#[test]
fn a_device_that_asks_for_a_reset_again_and_again_is_given_up() {
    let (path, _) = file(1 << 20);
    let (model, mut port) = port(Features::USUAL);
    model.set_fault(Fault::NeedsResetAfter(0));
    // As soon as it has been reset it asks again.
    let again = |model: &VirtioNetModel| {
        if model.status() & 64 == 0 {
            model.set_fault(Fault::NeedsResetAfter(0));
        }
    };
    let (report, datagrams) = run(&model, &mut port, Source::open(&path).unwrap(), Bench::options(), again);
    let Stop::Failed(why) = &report.stopped else { panic!("{:?}", report.stopped) };
    assert!(why.contains("DEVICE_NEEDS_RESET"), "{why}");
    assert_eq!((report.resets, datagrams.len()), (1, 0));
    assert_eq!(report.frames_lost, report.frames);
}

#[test]
fn a_device_that_nobody_needed_may_ask_once_more_after_a_while() {
    let (model, mut port) = port(Features::USUAL);
    let mut asks = |seconds| {
        model.set_fault(Fault::NeedsResetAfter(0));
        port.announce().unwrap();
        let checked = port.check(Duration::from_secs(seconds));
        assert_ne!(checked.reset, checked.trouble.is_some());
        checked.reset
    };
    assert!(asks(0) && !asks(59) && asks(60) && !asks(119) && asks(120));
}

#[test]
fn a_device_that_asks_for_an_announcement_gets_one() {
    let (model, mut port) = port(Features::USUAL);
    assert!(port.check(Duration::ZERO).trouble.is_none() && model.step().is_empty());
    model.ask_for_announcement();
    for _ in 0..2 {
        assert!(port.check(Duration::ZERO).trouble.is_none());
        port.nic().tx(0).reap().unwrap();
    }
    let frames = model.step();
    assert_eq!((frames.len(), model.control().announcements), (1, 1));
    let told = etherparse::SlicedPacket::from_ethernet(&frames[0]).unwrap();
    let Some(etherparse::NetSlice::Arp(arp)) = told.net else { panic!("{frames:?}") };
    let own = [192, 0, 2, 1];
    assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&own[..], &own[..]));
    assert_eq!(arp.sender_hw_addr(), port.interface().mac().0);
}
