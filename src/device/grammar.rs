//! How a NIC's address is written.

use std::str::FromStr;

use hal::MacAddress;
use hw_sim::rig::Model;
use hw_sim::wire::{HostForward, HostWire};

use super::address::{BusAddress, DeviceAddress, PciNic, SimulatedAddress, SimulatedNic, VhostUserAddress};
use super::driver::{Driver, DriverOptions};

/// A text that is not a device address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a NIC's address: {reason}; write {GRAMMAR}")]
pub struct ParseDeviceError {
    text: String,
    reason: String,
}

/// What can be written.
const GRAMMAR: &str = "sim:e1000|virtio-net[,wire=user|dgram:LOCAL:REMOTE|tap:NAME][,hostfwd=tcp|udp:[ADDR]:PORT-[ADDR]:PORT][,pcap=FILE][,mac=MAC], \
    pci:0000:00:03.0[,noiommu=on] or vhost-user:SOCKET[,server=on][,files=on], each with [,tx-ring=N][,rx-ring=N][,checksum=off][,gather=off], and for \
    virtio [,packed=on|off][,queues=N][,mac=MAC] (simulated ones [,msix=on])";

impl FromStr for DeviceAddress {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ParseDeviceError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<DeviceAddress, String> {
    let (bus, rest) = text.split_once(':').ok_or("there is no bus in front of a colon")?;
    let mut parts = rest.split(',');
    let name = parts.next().unwrap_or_default();
    let options = parts.map(|option| option.split_once('=').ok_or_else(|| format!("{option:?} is not KEY=VALUE")));
    let mut driver = DriverOptions::default();
    let bus = match bus {
        "sim" => {
            let mut simulated = SimulatedAddress::new(parse_model(name)?);
            let mut forwards = Vec::new();
            for option in options {
                let (key, value) = option?;
                match key {
                    "wire" => simulated.wire = parse_wire(value)?,
                    "hostfwd" => forwards.push(value.parse::<HostForward>().map_err(|error| error.to_string())?),
                    "pcap" if !value.is_empty() => simulated.pcap = Some(value.into()),
                    "mac" => simulated.mac = Some(parse_mac(value)?),
                    "msix" if simulated.model == SimulatedNic::VirtioNet => simulated.msix = parse_switch(key, value)?,
                    _ if is_device_option(simulated.model, key) => {
                        simulated.virtio = simulated.virtio.with(key, value).map_err(|error| error.to_string())?;
                        // What the device has, the driver uses.
                        if is_driver_option(key) {
                            parse_driver_option(&mut driver, key, value)?;
                        }
                    }
                    _ => parse_driver_option(&mut driver, key, value)?,
                }
            }
            if !forwards.is_empty() {
                match &mut simulated.wire {
                    HostWire::User { forwards: wanted } => *wanted = forwards,
                    _ => return Err("hostfwd= needs wire=user".into()),
                }
            }
            simulated.model.driver().check(driver).map_err(|error| error.to_string())?;
            BusAddress::Simulated(simulated)
        }
        "pci" => {
            let address = name.parse().map_err(|error: vfio::ParseAddressError| error.to_string())?;
            let mut nic = PciNic { address, no_iommu: false };
            for option in options {
                let (key, value) = option?;
                match key {
                    "noiommu" => nic.no_iommu = parse_switch(key, value)?,
                    _ => parse_driver_option(&mut driver, key, value)?,
                }
            }
            BusAddress::Pci(nic)
        }
        "vhost-user" => {
            if name.is_empty() {
                return Err("the path of the back end's socket is missing".into());
            }
            let mut back_end = VhostUserAddress { path: name.into(), server: false, files: false };
            for option in options {
                let (key, value) = option?;
                match key {
                    "server" => back_end.server = parse_switch(key, value)?,
                    "files" => back_end.files = parse_switch(key, value)?,
                    _ => parse_driver_option(&mut driver, key, value)?,
                }
            }
            Driver::VirtioNet.check(driver).map_err(|error| error.to_string())?;
            BusAddress::VhostUser(back_end)
        }
        other => return Err(format!("there is no bus {other:?}")),
    };
    Ok(DeviceAddress { bus, driver })
}

fn parse_model(name: &str) -> Result<SimulatedNic, String> {
    SimulatedNic::ALL.into_iter().find(|model| model.name() == name).ok_or_else(|| {
        let known = SimulatedNic::ALL.map(SimulatedNic::name).join(", ");
        match name.parse::<Model>() {
            Ok(_) => format!("there is no driver for {name} yet (there is one for {known})"),
            Err(_) => format!("there is no device model {name:?} (there is {known})"),
        }
    })
}

fn parse_mac(value: &str) -> Result<MacAddress, String> {
    let mac: MacAddress = value.parse().map_err(|error: hal::mac::ParseMacError| error.to_string())?;
    if mac.is_valid_unicast() { Ok(mac) } else { Err(format!("{mac} cannot be a NIC's own address")) }
}

/// Whether an option is about what the simulated device offers.
fn is_device_option(model: SimulatedNic, key: &str) -> bool {
    model == SimulatedNic::VirtioNet && !matches!(key, "tx-ring" | "rx-ring" | "checksum" | "gather")
}

/// Whether an option of the device is one of the driver, too.
fn is_driver_option(key: &str) -> bool {
    matches!(key, "packed" | "queues")
}

fn parse_driver_option(driver: &mut DriverOptions, key: &str, value: &str) -> Result<(), String> {
    match key {
        "tx-ring" => driver.tx_ring = Some(parse_count(key, value)?),
        "rx-ring" => driver.rx_ring = Some(parse_count(key, value)?),
        "checksum" => driver.checksum = parse_switch(key, value)?,
        "gather" => driver.gather = parse_switch(key, value)?,
        "packed" => driver.packed = Some(parse_switch(key, value)?),
        "queues" => driver.queues = Some(parse_count(key, value)?),
        "mac" => driver.mac = Some(parse_mac(value)?),
        _ => return Err(format!("there is no option \"{key}={value}\" here")),
    }
    Ok(())
}

fn parse_wire(value: &str) -> Result<HostWire, String> {
    match value.split_once(':') {
        None if value == "user" => Ok(HostWire::default()),
        Some(("dgram", paths)) => match paths.split_once(':') {
            Some((local, remote)) if !local.is_empty() && !remote.is_empty() => {
                Ok(HostWire::Dgram { local: local.into(), remote: remote.into() })
            }
            _ => Err("wire=dgram needs two socket paths".into()),
        },
        Some(("tap", name)) if !name.is_empty() => Ok(HostWire::Tap { name: name.into() }),
        _ => Err(format!("there is no wire {value:?}")),
    }
}

fn parse_count(key: &str, value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("{key} is a number, not {value:?}"))
}

fn parse_switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key} is on or off")),
    }
}

#[cfg(test)]
mod tests {
    use hw_sim::rig::VirtioOptions;

    use super::*;

    fn simulated(text: &str) -> SimulatedAddress {
        match text.parse::<DeviceAddress>().unwrap().bus {
            BusAddress::Simulated(simulated) => simulated,
            _ => panic!("{text} is simulated"),
        }
    }

    #[test]
    fn an_address_says_model_wire_and_options() {
        assert_eq!(simulated("sim:e1000"), SimulatedAddress::new(SimulatedNic::E1000));
        let address = simulated("sim:e1000,wire=dgram:/tmp/a:/tmp/b,pcap=x.pcap,mac=52:54:00:00:00:01");
        assert_eq!(address.wire, HostWire::Dgram { local: "/tmp/a".into(), remote: "/tmp/b".into() });
        let address = simulated("sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::53-:53");
        assert!(matches!(address.wire, HostWire::User { forwards } if forwards.len() == 2));
        assert!(simulated("sim:virtio-net,msix=on").msix && !simulated("sim:virtio-net").msix);
        assert!("sim:e1000,msix=on".parse::<DeviceAddress>().is_err(), "it has INTx alone");
    }

    #[test]
    fn the_drivers_options_are_the_same_on_every_bus() {
        let expected = DriverOptions { tx_ring: Some(80), checksum: false, ..DriverOptions::default() };
        for text in ["sim:e1000,tx-ring=80,checksum=off", "pci:0000:00:03.0,tx-ring=80,checksum=off"] {
            assert_eq!(text.parse::<DeviceAddress>().unwrap().driver, expected);
        }
        assert_eq!("pci:00:03.0".parse::<DeviceAddress>().unwrap().to_string(), "pci:0000:00:03.0");
        for (text, expected) in [("pci:00:03.0", false), ("pci:00:03.0,noiommu=off", false), ("pci:00:03.0,tx-ring=80,noiommu=on", true)] {
            let BusAddress::Pci(nic) = text.parse::<DeviceAddress>().unwrap().bus else { panic!("{text} is on the bus") };
            assert_eq!(nic.no_iommu, expected, "{text}");
        }
    }

    #[test]
    fn a_back_end_is_a_socket_with_options() {
        let address: DeviceAddress = "vhost-user:/tmp/s,server=on,packed=on,queues=2".parse().unwrap();
        assert_eq!(address.to_string(), "vhost-user:/tmp/s");
        assert_eq!((address.driver.packed, address.driver.queues), (Some(true), Some(2)));
        let driver = "vhost-user:/tmp/s,mac=02:00:00:00:00:07".parse::<DeviceAddress>().unwrap().driver;
        assert_eq!(driver.mac, Some(MacAddress([2, 0, 0, 0, 0, 7])));
        assert_eq!(address.bus, BusAddress::VhostUser(VhostUserAddress { path: "/tmp/s".into(), server: true, files: false }));
    }

    #[test]
    fn a_simulated_virtio_device_offers_what_its_driver_is_told_to_use() {
        let address: DeviceAddress = "sim:virtio-net,packed=on,queues=4,event_idx=off,tx-ring=64,wire=tap:t0".parse().unwrap();
        assert_eq!(address.driver, DriverOptions { packed: Some(true), queues: Some(4), tx_ring: Some(64), ..DriverOptions::default() });
        let BusAddress::Simulated(simulated) = address.bus else { panic!("it is simulated") };
        let offered = VirtioOptions::default().with("packed", "on").and_then(|options| options.with("queues", "4"));
        assert_eq!(Ok(simulated.virtio), offered.and_then(|options| options.with("event_idx", "off")));
        let driver = "pci:0000:00:03.0,packed=off,queues=2".parse::<DeviceAddress>().unwrap().driver;
        assert_eq!((driver.packed, driver.queues), (Some(false), Some(2)));
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_and_shows_the_grammar() {
        for (text, expected) in [
            ("e1000", "no bus in front"),
            ("usb:e1000", "no bus \"usb\""),
            ("pci:eth0", "eth0"),
            ("pci:0000:00:03.0,wire=user", "no option"),
            ("vhost-user:", "socket is missing"),
            ("vhost-user:/tmp/socket,files=some", "on or off"),
            ("vhost-user:/tmp/socket,wire=user", "no option"),
            ("sim:e1000,noiommu=on", "no option"),
            ("pci:00:03.0,noiommu=yes", "noiommu is on or off"),
            ("sim:rtl8139", "no device model \"rtl8139\""),
            ("sim:e1000e", "no driver for e1000e yet"),
            ("sim:e1000,wire=radio", "no wire \"radio\""),
            ("sim:e1000,wire=dgram:a", "two socket paths"),
            ("sim:e1000,tx-ring=81", "80 to 4096"),
            ("sim:e1000,speed=fast", "no option"),
            ("sim:e1000,gather=maybe", "on or off"),
            ("sim:e1000,wire=tap:t0,hostfwd=tcp::1-:1", "needs wire=user"),
            ("sim:e1000,mac=ff:ff:ff:ff:ff:ff", "own address"),
            ("sim:e1000,rx-ring=many", "a number"),
            ("sim:e1000,packed=on", "options of virtio-net"),
            ("sim:e1000,event_idx=off", "no option"),
            ("sim:virtio-net,tx-ring=7", "8 to 32768"),
            ("sim:virtio-net,queues=0", "1 to 128"),
            ("sim:virtio-net,queues=129", "1 to 128"),
            ("sim:virtio-net,packed=maybe", "on or off"),
            ("sim:virtio-net,vectors=-1", "0 to 2048"),
            ("sim:virtio-net,speed=fast", "no option \"speed\""),
            ("pci:0000:00:03.0,event_idx=off", "no option"),
            ("pci:0000:00:03.0,mac=01:00:5e:00:00:01", "own address"),
        ] {
            let error = text.parse::<DeviceAddress>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("write sim:e1000|virtio-net[,wire="), "{error}");
        }
    }
}
