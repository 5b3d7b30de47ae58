//! A NIC's address, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hal::MacAddress;
use hw_sim::rig::{Model, RigConfig};
use hw_sim::wire::{HostForward, HostWire};
use vfio::PciAddress;

/// Where a NIC is, and what its driver is told: `sim:e1000`, `sim:e1000,wire=tap:tap0,pcap=out.pcap`, `pci:0000:00:03.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// Where it is.
    pub bus: BusAddress,
    /// What its driver is told.
    pub driver: DriverOptions,
}

/// Where a NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusAddress {
    /// On the rig.
    Simulated(SimulatedAddress),
    /// On this machine's PCI bus, through VFIO.
    Pci(PciNic),
}

/// A NIC of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciNic {
    /// Where it is.
    pub address: PciAddress,
    /// Also without an IOMMU: the NIC reaches all memory, and files are copied.
    pub no_iommu: bool,
}

/// A NIC of the rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedAddress {
    /// The model that the rig simulates.
    pub model: SimulatedNic,
    /// What it is plugged into.
    pub wire: HostWire,
    /// A file that gets every frame.
    pub pcap: Option<PathBuf>,
    /// The NIC's Ethernet address.
    pub mac: Option<MacAddress>,
}

/// What a driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Transmit descriptors; the driver's default without.
    pub tx_ring: Option<u16>,
    /// Receive descriptors; the driver's default without.
    pub rx_ring: Option<u16>,
    /// Whether the NIC may compute checksums.
    pub checksum: bool,
    /// Whether the NIC may gather.
    pub gather: bool,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self { tx_ring: None, rx_ring: None, checksum: true, gather: true }
    }
}

/// A NIC of the rig that there is a driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedNic {
    /// Intel 82540EM.
    E1000,
}

impl SimulatedNic {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::E1000];

    /// As in an address.
    pub fn name(self) -> &'static str {
        match self {
            Self::E1000 => "e1000",
        }
    }

    /// As on the box.
    pub fn product(self) -> &'static str {
        match self {
            Self::E1000 => "Intel 82540EM",
        }
    }

    fn model(self) -> Model {
        match self {
            Self::E1000 => Model::E1000,
        }
    }
}

impl SimulatedAddress {
    /// A model with nothing else said.
    pub fn new(model: SimulatedNic) -> Self {
        Self { model, wire: HostWire::default(), pcap: None, mac: None }
    }

    /// What the rig has to be told.
    pub fn rig(&self) -> RigConfig {
        RigConfig { wire: self.wire.clone().into(), pcap: self.pcap.clone(), mac: self.mac, ..RigConfig::new(self.model.model()) }
    }
}

/// A text that is not a device address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a NIC's address: {reason}; write {GRAMMAR}")]
pub struct ParseDeviceError {
    text: String,
    reason: String,
}

/// What can be written.
const GRAMMAR: &str = "sim:e1000[,wire=user|dgram:LOCAL:REMOTE|tap:NAME][,hostfwd=tcp|udp:[ADDR]:PORT-[ADDR]:PORT][,pcap=FILE][,mac=MAC] or \
    pci:0000:00:03.0[,noiommu=on], either with [,tx-ring=N][,rx-ring=N][,checksum=off][,gather=off]";

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
                    _ => parse_driver_option(&mut driver, key, value)?,
                }
            }
            if !forwards.is_empty() {
                match &mut simulated.wire {
                    HostWire::User { forwards: wanted } => *wanted = forwards,
                    _ => return Err("hostfwd= needs wire=user".into()),
                }
            }
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
        "vhost-user" => return Err("vhost-user is not supported yet".into()),
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

fn parse_driver_option(driver: &mut DriverOptions, key: &str, value: &str) -> Result<(), String> {
    match key {
        "tx-ring" => driver.tx_ring = Some(parse_ring(value)?),
        "rx-ring" => driver.rx_ring = Some(parse_ring(value)?),
        "checksum" => driver.checksum = parse_switch(key, value)?,
        "gather" => driver.gather = parse_switch(key, value)?,
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

fn parse_ring(value: &str) -> Result<u16, String> {
    let len = value.parse().ok().filter(|len: &u16| (80..=4096).contains(len) && len.is_multiple_of(8));
    len.ok_or_else(|| format!("a ring of {value:?} descriptors (80 to 4096, a multiple of 8)"))
}

fn parse_switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key} is on or off")),
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bus {
            BusAddress::Simulated(simulated) => write!(f, "sim:{}", simulated.model.name()),
            BusAddress::Pci(nic) => write!(f, "pci:{}", nic.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated(text: &str) -> SimulatedAddress {
        match text.parse::<DeviceAddress>().unwrap().bus {
            BusAddress::Simulated(simulated) => simulated,
            BusAddress::Pci(_) => panic!("{text} is simulated"),
        }
    }

    #[test]
    fn an_address_says_model_wire_and_options() {
        assert_eq!(simulated("sim:e1000"), SimulatedAddress::new(SimulatedNic::E1000));
        let address = simulated("sim:e1000,wire=dgram:/tmp/a:/tmp/b,pcap=x.pcap,mac=52:54:00:00:00:01");
        assert_eq!(address.wire, HostWire::Dgram { local: "/tmp/a".into(), remote: "/tmp/b".into() });
        let address = simulated("sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::53-:53");
        assert!(matches!(address.wire, HostWire::User { forwards } if forwards.len() == 2));
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
    fn a_malformed_address_says_what_is_wrong_and_shows_the_grammar() {
        for (text, expected) in [
            ("e1000", "no bus in front"),
            ("usb:e1000", "no bus \"usb\""),
            ("pci:eth0", "eth0"),
            ("pci:0000:00:03.0,wire=user", "no option"),
            ("vhost-user:/tmp/socket", "not supported yet"),
            ("sim:rtl8139", "no device model \"rtl8139\""),
            ("sim:e1000e", "no driver for e1000e yet"),
            ("sim:e1000,wire=radio", "no wire \"radio\""),
            ("sim:e1000,wire=dgram:a", "two socket paths"),
            ("sim:e1000,tx-ring=81", "80 to 4096"),
            ("sim:e1000,speed=fast", "no option"),
            ("sim:e1000,gather=maybe", "on or off"),
            ("sim:e1000,noiommu=on", "no option"),
            ("pci:00:03.0,noiommu=yes", "noiommu is on or off"),
            ("sim:e1000,wire=tap:t0,hostfwd=tcp::1-:1", "needs wire=user"),
            ("sim:e1000,mac=ff:ff:ff:ff:ff:ff", "own address"),
        ] {
            let error = text.parse::<DeviceAddress>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("write sim:e1000[,wire="), "{error}");
        }
    }
}
