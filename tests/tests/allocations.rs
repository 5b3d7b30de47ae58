//! Nothing is allocated for a frame: counted by a counting allocator, on a device in memory.

use std::time::Duration;

use e1000::{E1000, E1000Config};
use etherparse::{PacketBuilder, TcpOptionElement};
use hal::Nic;
use hw_sim::model::e1000::E1000Model;
use hw_sim::model::idle::IdleDevice;
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::send::{Framing, Port, PortConfig, Step, UdpOptions, UdpSend};
use pagewire::tcp::{SharedFile, Stack, StackConfig, TcpConfig};

/// Steps in which vectors grow to the size that they keep.
const WARM_UP: u32 = 100;
const MEASURED: u32 = 900;
/// The size of a window in bytes (`src/file/window.rs`).
const WINDOW: u64 = 4 << 20;

fn allocations(framing: Framing, config: E1000Config) -> u64 {
    let device = IdleDevice::new("52:54:00:00:00:01".parse().unwrap());
    let nic = E1000::start(device.device(), config).unwrap();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, None).unwrap();
    let mut port = Port::new(Box::new(nic), interface, PortConfig::default()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let options =
        UdpOptions { station: Some("52:54:00:00:00:02".parse().unwrap()), framing, ..UdpOptions::to("192.0.2.2:9000".parse().unwrap()) };
    let mut send = UdpSend::new(&mut port, Source::open(file.path()).unwrap(), options, Duration::ZERO).unwrap();
    let mut counted = 0;
    for number in 0..WARM_UP + MEASURED {
        let now = Duration::from_micros(number.into());
        let info = allocation_counter::measure(|| assert_eq!(send.step(now).unwrap(), Step::Busy));
        // Where the file's next window is mapped and the last one is put back, that is allocated: 2849 frames go before it is needed again.
        let before_window = WINDOW - send.progress().bytes % WINDOW;
        let next_window = !(128 << 10..=WINDOW - (128 << 10)).contains(&before_window);
        if number >= WARM_UP && !next_window {
            counted += info.count_total;
        }
        device.complete();
    }
    assert!(send.progress().bytes > 32 * 1400 * u64::from(MEASURED));
    counted
}

#[test]
fn a_gathered_frame_allocates_nothing() {
    for framing in [Framing::Raw, Framing::Offset] {
        assert_eq!(allocations(framing, E1000Config::default()), 0, "{framing:?}");
    }
}

#[test]
fn a_copied_frame_allocates_nothing_either() {
    assert_eq!(allocations(Framing::Raw, E1000Config { gather: false, ..E1000Config::default() }), 0);
}

/// A client on the model's wire that acknowledges whatever it gets: headers written by etherparse.
struct Client {
    model: E1000Model,
    acknowledged: u32,
}

impl Client {
    const PORT: u16 = 50_000;

    fn says(&self, syn: bool, sequence: u32) {
        let packet = PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1]);
        let segment = packet.ipv4([192, 0, 2, 2], [192, 0, 2, 1], 64).tcp(Self::PORT, 80, sequence, 65_535);
        let segment = if syn { segment.syn() } else { segment.ack(self.acknowledged) };
        let options = [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::WindowScale(4)];
        let segment = if syn { segment.options(&options).expect("they fit") } else { segment };
        let mut frame = Vec::new();
        segment.write(&mut frame, &[]).expect("a frame");
        self.model.receive(&frame);
    }

    /// Takes what is on the wire, and acknowledges it.
    fn answers(&mut self) {
        for frame in self.model.step() {
            let checked = hw_sim::wire::check(&frame).expect("a frame that is right");
            let Some(tcp) = checked.tcp else { continue };
            self.acknowledged = tcp.sequence.wrapping_add(u32::from(tcp.syn)).wrapping_add(checked.payload.len() as u32);
        }
        self.says(false, 1);
    }
}

#[test]
fn a_frame_of_a_connection_allocates_nothing() {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    let nic = E1000::start(model.device(), E1000Config::default()).unwrap();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, None).unwrap();
    let port = Port::new(Box::new(nic), interface, PortConfig::default()).unwrap();
    let config = StackConfig { tcp: TcpConfig { pacing: false, ..TcpConfig::default() }, ..StackConfig::default() };
    let mut stack = Stack::new(port, config).unwrap();
    let listener = stack.listen(80, 1).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 30).unwrap();
    let file = SharedFile::open(file.path()).unwrap();
    let mut client = Client { model, acknowledged: 0 };
    client.says(true, 0);
    let (mut counted, mut allocating) = (0_u64, 0);
    for number in 0..240_u64 {
        let now = Duration::from_micros(100 * number);
        let sent = |stack: &mut Stack| stack.report().bytes_gathered / WINDOW;
        let before = sent(&mut stack);
        // Until nothing more can be sent before the next acknowledgement.
        let info = allocation_counter::measure(|| while stack.poll(now).unwrap() == Step::Busy {});
        if number >= WARM_UP.into() {
            counted += 1;
            // Where the next window is mapped, or the last one let go, that is allocated: once each for a window.
            let window = sent(&mut stack) != before;
            allocating += u64::from(info.count_total > 0 && !window);
        }
        client.answers();
        if let Some(socket) = listener.accept(&mut stack) {
            socket.sendfile(&mut stack, &file, 0..1 << 30).unwrap();
        }
        while stack.next_event().is_some() {}
    }
    let report = stack.report();
    assert_eq!((report.bytes_copied, report.retransmitted), (0, 0));
    assert!(report.bytes_gathered > counted * 60_000, "{report:?}");
    // The window that is let go goes some polls after the next one was mapped.
    assert!(allocating <= report.windows.mapped, "{allocating} of {counted} polls allocate, with {} windows", report.windows.mapped);
}
