//! From an address, as users write it, to a started NIC.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use e1000::{E1000, E1000Config};
use hal::{MacAddress, Nic, NicError, OffloadFlags};
use hw_sim::rig::{Model, Rig, RigConfig, RigError};
use hw_sim::wire::{HostForward, WireConfig};

/// Where a NIC is: `sim:e1000`, `sim:e1000,wire=tap:tap0,pcap=out.pcap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// The model that the rig simulates.
    pub model: SimulatedNic,
    /// What it is plugged into.
    pub wire: Wire,
    /// A file that gets every frame.
    pub pcap: Option<PathBuf>,
    /// The NIC's Ethernet address.
    pub mac: Option<MacAddress>,
    /// Transmit descriptors.
    pub tx_ring: Option<u16>,
    /// Receive descriptors.
    pub rx_ring: Option<u16>,
    /// Whether the NIC may compute checksums.
    pub checksum: bool,
    /// Whether the NIC may gather.
    pub gather: bool,
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

/// What a simulated NIC is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// QEMU's user network: this host is 10.0.2.2, its ordinary sockets are the peer.
    User {
        /// Ports of this host that lead to the NIC.
        forwards: Vec<HostForward>,
    },
    /// Unix datagram sockets, a frame a datagram.
    Dgram {
        /// Ours.
        local: PathBuf,
        /// The peer's.
        remote: PathBuf,
    },
    /// A TAP interface.
    Tap {
        /// Its name.
        name: String,
    },
}

/// How a NIC is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The largest IP packet in bytes. Default 1500.
    pub mtu: u16,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mtu: 1500 }
    }
}

/// A NIC that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The simulator.
    #[error("{0}")]
    Rig(#[from] RigError),
    /// The driver.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// The text is not an address.
    #[error("{0}")]
    Address(#[from] ParseDeviceError),
}

/// Opens and starts the NIC at `address`.
///
/// # Errors
/// [`OpenError`].
///
/// ```no_run
/// let nic = pagewire::device::open(&"sim:e1000".parse()?, Default::default())?;
/// println!("{} {}", nic.model(), nic.mac());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(address: &DeviceAddress, options: OpenOptions) -> Result<Box<dyn Nic>, OpenError> {
    let rig = Rig::start(address.rig())?;
    open_on(&rig, address, options)
}

/// Opens and starts the NIC of a rig that runs already, with the options of `address` that concern the driver.
///
/// # Errors
/// [`OpenError`].
pub fn open_on(rig: &Rig, address: &DeviceAddress, options: OpenOptions) -> Result<Box<dyn Nic>, OpenError> {
    let mut offloads = OffloadFlags::all();
    if !address.checksum {
        // Segmentation needs the checksum.
        offloads &= OffloadFlags::VLAN_TAG;
    }
    let default = E1000Config::default();
    let config = E1000Config {
        mtu: options.mtu,
        tx_descriptors: address.tx_ring.unwrap_or(default.tx_descriptors),
        rx_descriptors: address.rx_ring.unwrap_or(default.rx_descriptors),
        offloads,
        gather: address.gather,
        ..default
    };
    match address.model {
        SimulatedNic::E1000 => Ok(Box::new(E1000::start(rig.device()?, config)?)),
    }
}

impl DeviceAddress {
    /// A model with nothing else said.
    pub fn simulated(model: SimulatedNic) -> Self {
        let wire = Wire::User { forwards: Vec::new() };
        Self { model, wire, pcap: None, mac: None, tx_ring: None, rx_ring: None, checksum: true, gather: true }
    }

    /// What the rig has to be told.
    pub fn rig(&self) -> RigConfig {
        let wire = match &self.wire {
            Wire::User { forwards } => WireConfig::User { forwards: forwards.clone() },
            Wire::Dgram { local, remote } => WireConfig::Dgram { local: local.clone(), remote: remote.clone() },
            Wire::Tap { name } => WireConfig::Tap { name: name.clone() },
        };
        RigConfig { wire, pcap: self.pcap.clone(), mac: self.mac, ..RigConfig::new(self.model.model()) }
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
const GRAMMAR: &str = "sim:e1000[,wire=user|dgram:LOCAL:REMOTE|tap:NAME][,hostfwd=tcp|udp:[ADDR]:PORT-[ADDR]:PORT][,pcap=FILE][,mac=MAC]\
    [,tx-ring=N][,rx-ring=N][,checksum=off][,gather=off]";

impl FromStr for DeviceAddress {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ParseDeviceError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<DeviceAddress, String> {
    let (bus, rest) = text.split_once(':').ok_or("there is no bus in front of a colon")?;
    match bus {
        "sim" => {}
        "pci" => return Err("real devices (VFIO) are not supported yet".into()),
        "vhost-user" => return Err("vhost-user is not supported yet".into()),
        other => return Err(format!("there is no bus {other:?}")),
    }
    let mut parts = rest.split(',');
    let name = parts.next().unwrap_or_default();
    let model = SimulatedNic::ALL.into_iter().find(|model| model.name() == name).ok_or_else(|| {
        let known: Vec<_> = SimulatedNic::ALL.map(SimulatedNic::name).into();
        match name.parse::<Model>() {
            Ok(_) => format!("there is no driver for {name} yet (there is one for {})", known.join(", ")),
            Err(_) => format!("there is no device model {name:?} (there is {})", known.join(", ")),
        }
    })?;
    let mut address = DeviceAddress::simulated(model);
    let mut forwards = Vec::new();
    for option in parts {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("{option:?} is not KEY=VALUE"))?;
        match key {
            "wire" => address.wire = parse_wire(value)?,
            "hostfwd" => forwards.push(value.parse::<HostForward>().map_err(|error| error.to_string())?),
            "pcap" if !value.is_empty() => address.pcap = Some(value.into()),
            "mac" => address.mac = Some(value.parse::<MacAddress>().map_err(|error| error.to_string())?),
            "tx-ring" => address.tx_ring = Some(parse_ring(value)?),
            "rx-ring" => address.rx_ring = Some(parse_ring(value)?),
            "checksum" => address.checksum = parse_switch(key, value)?,
            "gather" => address.gather = parse_switch(key, value)?,
            _ => return Err(format!("there is no option {option:?}")),
        }
    }
    if let Some(mac) = address.mac.filter(|mac| !mac.is_valid_unicast()) {
        return Err(format!("{mac} cannot be a NIC's own address"));
    }
    if !forwards.is_empty() {
        match &mut address.wire {
            Wire::User { forwards: wanted } => *wanted = forwards,
            _ => return Err("hostfwd= needs wire=user".into()),
        }
    }
    Ok(address)
}

fn parse_wire(value: &str) -> Result<Wire, String> {
    match value.split_once(':') {
        None if value == "user" => Ok(Wire::User { forwards: Vec::new() }),
        Some(("dgram", paths)) => match paths.split_once(':') {
            Some((local, remote)) if !local.is_empty() && !remote.is_empty() => {
                Ok(Wire::Dgram { local: local.into(), remote: remote.into() })
            }
            _ => Err("wire=dgram needs two socket paths".into()),
        },
        Some(("tap", name)) if !name.is_empty() => Ok(Wire::Tap { name: name.into() }),
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
        write!(f, "sim:{}", self.model.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_model_wire_and_options() {
        assert_eq!("sim:e1000".parse(), Ok(DeviceAddress::simulated(SimulatedNic::E1000)));
        let address: DeviceAddress =
            "sim:e1000,wire=dgram:/tmp/a:/tmp/b,pcap=x.pcap,mac=52:54:00:00:00:01,tx-ring=80,checksum=off".parse().unwrap();
        assert_eq!(address.wire, Wire::Dgram { local: "/tmp/a".into(), remote: "/tmp/b".into() });
        assert_eq!((address.tx_ring, address.checksum, address.gather), (Some(80), false, true));
        let address: DeviceAddress = "sim:e1000,wire=user,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::53-:53".parse().unwrap();
        assert!(matches!(address.wire, Wire::User { forwards } if forwards.len() == 2));
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_and_shows_the_grammar() {
        for (text, expected) in [
            ("e1000", "no bus in front"),
            ("usb:e1000", "no bus \"usb\""),
            ("pci:0000:00:03.0", "not supported yet"),
            ("sim:rtl8139", "no device model \"rtl8139\""),
            ("sim:e1000e", "no driver for e1000e yet"),
            ("sim:e1000,wire=radio", "no wire \"radio\""),
            ("sim:e1000,wire=dgram:a", "two socket paths"),
            ("sim:e1000,tx-ring=81", "80 to 4096"),
            ("sim:e1000,speed=fast", "no option"),
            ("sim:e1000,gather=maybe", "on or off"),
            ("sim:e1000,wire=tap:t0,hostfwd=tcp::1-:1", "needs wire=user"),
            ("sim:e1000,mac=ff:ff:ff:ff:ff:ff", "own address"),
        ] {
            let error = text.parse::<DeviceAddress>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("write sim:e1000[,wire="), "{error}");
        }
    }
}
