//! Nothing is allocated for a frame: counted by a counting allocator, on a device in memory.

use std::time::Duration;

use e1000::{E1000, E1000Config};
use hal::Nic;
use hw_sim::model::idle::IdleDevice;
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::send::{Framing, Port, PortConfig, Step, UdpOptions, UdpSend};

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
