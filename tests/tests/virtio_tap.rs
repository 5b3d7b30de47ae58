//! QEMU's virtio-net on TAP interfaces, where it has all of its offloads and several queues, against the kernel: flows on their queues, RSS, large
//! frames that are cut, and joined ones that are taken.
//!
//! All of it is in one network: the rigs of a process start in the network that the first one was started in.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use etherparse::{PacketBuilder, TransportSlice};
use hal::receive::RxFlags;
use hal::{Burst, MacAddress, Nic, Offload, OffloadFlags, Pool, PoolConfig, RxBurst, RxFilter};
use hw_sim::rig::{Model, Rig, RigConfig, VirtioOptions};
use hw_sim::wire::{HostWire, WireConfig, check};
use pagewire::file::source::Available;
use pagewire::net::Interface;
use pagewire::send::{Port, PortConfig, Wait};
use pagewire::tcp::{Event, Stack, StackConfig, run as run_stack};
use pagewire_tests::command::{Figures, pagewire, run};
use pagewire_tests::namespace::{Namespace, Tap};
use pagewire_tests::{PATIENCE, content, tool, wait_for};
use virtio_net::pci::PciTransport;
use virtio_net::{Rss, VirtioNet, VirtioNetConfig};

const STATION: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Split and packed rings.
const LAYOUTS: [&[(&str, &str)]; 2] = [&[], &[("packed", "on")]];
/// The port of the kernel's socket.
const PORT: u16 = 9000;

/// The network of this program, which the calling thread is in from now on. Each test has interfaces of its own.
fn network() -> &'static Namespace {
    static NETWORK: OnceLock<Namespace> = OnceLock::new();
    let network = NETWORK.get_or_init(|| {
        let tap = |name, multi_queue, addresses| Tap { name, multi_queue, addresses };
        let network = Namespace::of(&[
            tap("flows", true, &["10.9.0.1/24"][..]),
            tap("rss", true, &["10.9.1.1/24"]),
            tap("bench", true, &[]),
            tap("large", false, &[]),
            tap("cut", false, &[]),
            tap("joined", false, &["10.9.2.1/24"]),
        ]);
        // What comes in at one end leaves at the other, and whatever is too long for it is cut there.
        ip(&network, "link add name bridge type bridge");
        ip(&network, "link set large master bridge");
        ip(&network, "link set cut master bridge");
        ip(&network, "link set bridge up");
        for (interface, address) in [("flows", "10.9.0.2"), ("rss", "10.9.1.2"), ("joined", "10.9.2.2")] {
            ip(&network, &format!("neighbour add {address} lladdr {} dev {interface}", MacAddress(STATION)));
        }
        // Without a packet that the kernel sends by itself when QEMU comes. With RSS, QEMU keeps one that came by one pair's socket for another pair, whose
        // queue has no buffers yet; and goes on with that socket only when the first pair's doorbell is rung again.
        let mut quiet = Command::new("sh");
        quiet.args(["-c", "echo 1 > /proc/sys/net/ipv6/conf/rss/disable_ipv6"]);
        let _ = run(network.inside(&quiet)).with_code(0);
        network
    });
    network.enter();
    network
}

fn ip(network: &Namespace, arguments: &str) -> String {
    let mut command = Command::new(tool("ip", "iproute2"));
    command.args(arguments.split(' '));
    run(network.inside(&command)).with_code(0).stdout
}

/// The Ethernet address of one of the kernel's interfaces.
fn station(network: &Namespace, interface: &str) -> [u8; 6] {
    let said = ip(network, &format!("link show dev {interface}"));
    let (_, rest) = said.split_once("link/ether ").expect("an Ethernet interface");
    rest[..17].parse::<MacAddress>().expect("an address").0
}

/// The driver on a rig at a TAP interface, with a pool for each of its queue pairs, which hold buffers.
struct Bench {
    // In this order: the NIC stops before its buffers go.
    nic: VirtioNet,
    pools: Vec<Pool>,
    _rig: Rig,
}

fn rig(model: Model, tap: &str, settings: &[(&str, &str)]) -> Rig {
    let virtio = settings.iter().try_fold(VirtioOptions::default(), |options, (name, value)| options.with(name, value)).unwrap();
    let wire = WireConfig::Host(HostWire::Tap { name: tap.into() });
    Rig::start(RigConfig { virtio, wire, ..RigConfig::new(model) }).unwrap()
}

fn start(rig: &Rig, config: VirtioNetConfig) -> VirtioNet {
    VirtioNet::start(Box::new(PciTransport::new(rig.device().unwrap()).unwrap()), config).unwrap()
}

impl Bench {
    fn new(tap: &str, settings: &[(&str, &str)], config: VirtioNetConfig) -> Self {
        let rig = rig(Model::VirtioNet, tap, settings);
        let mut nic = start(&rig, config);
        let pairs = nic.queues().0;
        let pools: Vec<Pool> = (0..pairs).map(|_| Pool::new(PoolConfig { buffers: 1024, buffer_size: 2048 }).unwrap()).collect();
        for (pair, pool) in pools.iter().enumerate() {
            nic.attach_pool_of(pair, pool.attach(&nic.space()).unwrap()).unwrap();
        }
        let mut bench = Self { nic, pools, _rig: rig };
        bench.refill();
        bench
    }

    fn refill(&mut self) {
        for (pair, pool) in self.pools.iter_mut().enumerate() {
            self.nic.rx(pair).refill(pool).unwrap();
        }
    }

    /// Sends whole frames, each on the queue beside it.
    fn send(&mut self, frames: &[(usize, Vec<u8>)]) {
        for (queue, frame) in frames {
            let mut burst = Burst::default();
            let mut buffer = self.pools[*queue].take().expect("a buffer");
            buffer.set(frame);
            burst.push(buffer, Offload::NONE);
            assert_eq!(self.nic.tx(*queue).post(&mut burst).unwrap(), 1);
        }
        self.complete();
    }

    /// Waits until all that is posted is completed.
    fn complete(&mut self) {
        let start = Instant::now();
        for queue in 0..self.pools.len() {
            while self.nic.tx(queue).progress().posted() > self.nic.tx(queue).progress().completed() {
                self.nic.tx(queue).reap().unwrap();
                self.nic.tx(queue).check(start.elapsed()).unwrap();
            }
        }
    }

    /// Waits for `count` UDP packets to `port` and above; each with the queue that it came on, its ports and its hash.
    fn received(&mut self, count: usize) -> Vec<Arrived> {
        let start = Instant::now();
        let mut arrived = Vec::new();
        let mut burst = RxBurst::default();
        while arrived.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} packets: {arrived:?}", arrived.len());
            for queue in 0..self.pools.len() {
                self.nic.rx(queue).receive(&mut burst, usize::MAX).unwrap();
                for packet in burst.packets() {
                    let mut frame = vec![0; packet.bytes as usize];
                    packet.copy_to(&mut frame);
                    let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
                    // The kernel tries this and that by itself.
                    let Some(TransportSlice::Udp(udp)) = sliced.transport else { continue };
                    if udp.source_port() == PORT {
                        let hash = packet.flags.contains(RxFlags::HASH).then_some(packet.hash);
                        arrived.push(Arrived { queue, port: udp.destination_port(), hash });
                    }
                }
                burst.clear();
            }
            self.refill();
        }
        arrived
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrived {
    queue: usize,
    /// The port of this side, which names the flow.
    port: u16,
    hash: Option<u32>,
}

fn datagram(network: &Namespace, interface: &str, to: Ipv4Addr, own: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(STATION, station(network, interface)).ipv4(own.octets(), to.octets(), 64).udp(port, PORT);
    builder.write(&mut frame, &port.to_be_bytes()).unwrap();
    frame
}

/// The kernel answers a flow on the queue that it last came on, if it has as many: so the device was told how many pairs there are.
#[test]
fn flows_stay_on_their_queue_pairs_also_after_a_reset() {
    const PAIRS: u16 = 3;
    let network = network();
    let (own, to) = (Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 1));
    let socket = UdpSocket::bind((to, PORT)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for layout in LAYOUTS {
        let config = VirtioNetConfig { queue_pairs: PAIRS, ..VirtioNetConfig::default() };
        let mut bench = Bench::new("flows", &[layout, &[("queues", "3")]].concat(), config);
        assert_eq!(bench.nic.queues(), (3, 3));
        for round in 0..2 {
            let flows: Vec<(usize, u16)> = (0..12).map(|flow| (usize::from((flow + round) % PAIRS), 4000 + flow)).collect();
            let frames: Vec<_> = flows.iter().map(|(queue, port)| (*queue, datagram(network, "flows", to, own, *port))).collect();
            bench.send(&frames);
            let mut bytes = [0; 64];
            let mut heard: Vec<u16> = Vec::new();
            for _ in &flows {
                let (len, peer) = socket.recv_from(&mut bytes).unwrap();
                assert_eq!(bytes[..len], peer.port().to_be_bytes());
                heard.push(peer.port());
                socket.send_to(&bytes[..len], peer).unwrap();
            }
            heard.sort_unstable();
            assert_eq!(heard, flows.iter().map(|(_, port)| *port).collect::<Vec<_>>());
            let mut answered: Vec<(u16, usize)> = bench.received(flows.len()).iter().map(|one| (one.port, one.queue)).collect();
            answered.sort_unstable();
            assert_eq!(answered, flows.iter().map(|(queue, port)| (*port, *queue)).collect::<Vec<_>>(), "{layout:?}");
            assert_eq!(bench.nic.reset().unwrap(), 0);
            bench.refill();
        }
    }
}

/// For every set bit of the input, the 32 bits of the key that begin at its place.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let window = |at: usize| (at..at + 32).fold(0, |window: u32, place| window << 1 | u32::from(bit(key, place)));
    (0..8 * input.len()).filter(|at| bit(input, *at) == 1).map(window).fold(0, |sum, window| sum ^ window)
}

#[test]
fn packets_go_to_the_queue_that_their_hash_says_and_carry_it() {
    network();
    let (own, to) = (Ipv4Addr::new(10, 9, 1, 2), Ipv4Addr::new(10, 9, 1, 1));
    let socket = UdpSocket::bind((to, PORT)).unwrap();
    let key: Vec<u8> = content::bytes(40, 7);
    let table = vec![1, 0, 0, 1, 1, 1, 0, 1];
    let expected = |port: u16| {
        // Source and destination, as the NIC receives them (5.1.6.4.3.2).
        let input = [&to.octets()[..], &own.octets(), &PORT.to_be_bytes(), &port.to_be_bytes()].concat();
        let hash = toeplitz(&key, &input);
        Arrived { queue: table[(hash % 8) as usize].into(), port, hash: Some(hash) }
    };
    let flows: Vec<Arrived> = (5000..5040).map(expected).collect();
    assert!((0..2).all(|queue| flows.iter().filter(|flow| flow.queue == queue).count() > 5), "a key that spreads them");
    for layout in LAYOUTS {
        let rss = Some(Rss { key: key.clone(), table: table.clone() });
        let config = VirtioNetConfig { queue_pairs: 2, rss, hash_report: true, ..VirtioNetConfig::default() };
        let mut bench = Bench::new("rss", &[layout, &[("queues", "2"), ("rss", "on"), ("hash", "on")]].concat(), config);
        for flow in &flows {
            socket.send_to(b"hello", (own, flow.port)).unwrap();
        }
        let mut arrived = bench.received(flows.len());
        arrived.sort_unstable_by_key(|one| one.port);
        assert_eq!(arrived, flows, "{layout:?}");
    }
}

#[test]
fn a_measurement_has_several_queues_and_all_of_them_send() {
    let network = network();
    for nic in ["sim:virtio-net,queues=2,wire=tap:bench", "sim:virtio-net,packed=on,queues=2,wire=tap:bench"] {
        let command = pagewire(["bench", "tx", "--nic", nic, "--queues", "2", "--size", "64", "--seconds", "1", "--json"]);
        let figures = Figures(run(network.inside(&command)).with_code(0).json());
        assert_eq!(figures.number("queues"), 2);
        assert!(figures.number("frames") > 64 && figures.number("doorbells") > 1, "{}", figures.0);
    }
}

/// What QEMU hands the kernel in one piece leaves the bridge in pieces, which another NIC receives: what was asked for was right in all details.
#[test]
fn a_large_frame_is_cut_as_it_was_asked_for_over_both_families_and_behind_a_tag() {
    const MSS: u16 = 1000;
    let network = network();
    for (number, layout) in LAYOUTS.into_iter().enumerate() {
        let mut sender = Bench::new("large", layout, VirtioNetConfig::default());
        let offered = sender.nic.capabilities();
        assert!(offered.offloads.contains(OffloadFlags::SEGMENTATION) && offered.whole_headers, "{offered:?}");
        let filter = RxFilter { promiscuous: true, ..RxFilter::default() };
        let mut receiver = Bench::new("cut", &[("guest_csum", "off")], VirtioNetConfig { filter, ..VirtioNetConfig::default() });
        for interface in ["large", "cut"] {
            // The bridge hears some time later that somebody holds the other end.
            let forwards = || ip(network, &format!("-details link show dev {interface}")).contains("state forwarding").then_some(());
            wait_for("the bridge", forwards);
        }
        let content = content::bytes(60_000, number as u64);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[&content[..], &[0; 4096]].concat()).unwrap();
        let window = sender.nic.space().map_file(file.as_fd(), 0..61_440).unwrap();
        for (tag, ipv6, len) in [(None, false, 60_000), (None, true, 59_999), (Some(100), false, 1001), (Some(100), true, 60_000)] {
            let (header, offload) = tcp_header(tag, ipv6, len, MSS);
            let mut burst = Burst::default();
            let mut buffer = sender.pools[0].take().unwrap();
            buffer.set(&header);
            burst.push(buffer, offload);
            // In pieces that have nothing to do with segments.
            for start in (0..len).step_by(4099) {
                burst.gather(window.segment(start as u64, 4099.min(len - start) as u32).unwrap());
            }
            assert_eq!(sender.nic.tx(0).post(&mut burst).unwrap(), 1);
            sender.complete();
            assert_segments(&mut receiver, tag, &content[..len], MSS.into());
        }
        sender.nic.space().unmap(window).unwrap();
    }
}

const SEQUENCE: u32 = 0xffff_f000;

/// Headers of a TCP packet of `len` bytes of payload, as the driver wants them: of one piece, with the pseudo-header's sum in the checksum's place.
fn tcp_header(tag: Option<u16>, ipv6: bool, len: usize, mss: u16) -> (Vec<u8>, Offload) {
    let (peer, l4_len) = ([2, 0, 0, 0, 0, 9], (20 + len) as u16);
    let mut header = [&peer[..], &STATION].concat();
    tag.into_iter().for_each(|tag: u16| header.extend([0x81, 0, (tag >> 8) as u8, tag as u8]));
    header.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let ip_start = header.len();
    let addresses = if ipv6 {
        let ip = etherparse::Ipv6Header {
            payload_length: l4_len,
            next_header: etherparse::IpNumber::TCP,
            hop_limit: 64,
            source: [0xfd; 16],
            destination: [0xfe; 16],
            ..etherparse::Ipv6Header::default()
        };
        header.extend(ip.to_bytes());
        [ip.source, ip.destination].concat()
    } else {
        let mut ip = etherparse::Ipv4Header::new(l4_len, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        header.extend(ip.to_bytes());
        [ip.source, ip.destination].concat()
    };
    let l4_start = header.len();
    let mut tcp = etherparse::TcpHeader::new(1000, 2000, SEQUENCE, 8000);
    (tcp.ack, tcp.psh, tcp.fin) = (true, true, true);
    let pseudo = addresses.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>() + 6 + u32::from(l4_len);
    tcp.checksum = ((pseudo & 0xffff) + (pseudo >> 16)) as u16;
    header.extend(tcp.to_bytes());
    let flags = if ipv6 { OffloadFlags::TCP6_SEGMENTATION } else { OffloadFlags::TCP4_SEGMENTATION };
    let payload_start = header.len() as u8;
    (header, Offload { flags, ip_start: ip_start as u8, l4_start: l4_start as u8, payload_start, mss, vlan_tag: 0 })
}

/// Waits for all segments of a payload, and looks at each.
fn assert_segments(receiver: &mut Bench, tag: Option<u16>, payload: &[u8], mss: usize) {
    let (start, mut at, mut burst) = (Instant::now(), 0, RxBurst::default());
    while at < payload.len() {
        assert!(start.elapsed() < PATIENCE, "{at} of {} bytes", payload.len());
        receiver.nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
        for packet in burst.packets() {
            let mut frame = vec![0; packet.bytes as usize];
            packet.copy_to(&mut frame);
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { continue };
            // All lengths and checksums.
            let checked = check(&frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
            assert_eq!(checked.vlan, tag);
            let segment = &frame[checked.payload];
            let last = at + segment.len() == payload.len();
            assert_eq!(tcp.sequence_number(), SEQUENCE.wrapping_add(at as u32));
            assert_eq!((tcp.psh(), tcp.fin()), (last, last));
            assert!(segment.len() == mss || last && segment.len() < mss, "{} bytes at {at}", segment.len());
            assert!(segment == &payload[at..at + segment.len()], "at {at}");
            at += segment.len();
        }
        burst.clear();
        receiver.refill();
    }
}

/// The kernel's own segmentation is left to the NIC that receives: it hands large packets over, whose checksums nobody has computed.
#[test]
fn packets_that_the_device_joined_are_taken_whole() {
    const LEN: usize = 4_000_000;
    network();
    for layout in LAYOUTS {
        let rig = rig(Model::VirtioNet, "joined", layout);
        let nic = start(&rig, VirtioNetConfig { lro: true, ..VirtioNetConfig::default() });
        assert!(nic.features().iter().any(|feature| feature.name == "VIRTIO_NET_F_GUEST_TSO4" && feature.accepted));
        let interface = Interface::new(nic.mac(), "10.9.2.2/24".parse().unwrap(), None, 1500, None).unwrap();
        let port = Port::new(Box::new(nic), interface, PortConfig::default()).unwrap();
        let mut stack = Stack::new(port, StackConfig::default()).unwrap();
        stack.listen(PORT, 4).unwrap();
        let sent = content::bytes(LEN, 5);
        let expected = sent.clone();
        let sender = std::thread::spawn(move || {
            let mut connection = TcpStream::connect(SocketAddr::new([10, 9, 2, 2].into(), PORT)).expect("the stack listens");
            connection.write_all(&sent).expect("all of it is taken");
        });
        let (mut received, mut block) = (Vec::new(), vec![0; 1 << 16]);
        let deadline = Instant::now() + PATIENCE;
        let end = run_stack(&mut stack, Wait::default(), &AtomicBool::new(false), |stack, _| {
            assert!(Instant::now() < deadline, "{} bytes of {LEN}", received.len());
            while let Some(event) = stack.next_event() {
                match event {
                    Event::Incoming(listener) => while listener.accept(stack).is_some() {},
                    Event::Socket(socket) => loop {
                        match socket.recv(stack, &mut block).unwrap() {
                            Available::Bytes(len) => received.extend_from_slice(&block[..len]),
                            Available::NotYet => break,
                            Available::End => {
                                socket.close(stack);
                                return ControlFlow::Break(());
                            }
                        }
                    },
                }
            }
            ControlFlow::Continue(())
        });
        assert_eq!(end.unwrap(), Some(()));
        sender.join().unwrap();
        content::assert_same(&received, &expected);
        let report = stack.report();
        let smallest = LEN as u64 / 1448;
        assert!(report.segments < smallest / 2, "{} packets, where there would be {smallest} of the MTU", report.segments);
    }
}
