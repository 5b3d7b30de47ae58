//! The NIC of a command, its address, and how it is waited for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use hw_sim::rig::Rig;
use pagewire::device::{self, Device, DeviceAddress, OpenOptions};
use pagewire::net::{Cidr, Interface, Size};
use pagewire::send::{Port, PortConfig, Stability, Wait};

use super::Failure;

/// What every command says that sends files from a NIC.
#[derive(Args)]
pub struct PortArgs {
    /// The NIC: sim:MODEL or pci:ADDRESS, with [,OPTION=VALUE]...; see `pagewire nics --help`
    #[arg(long, value_name = "ADDRESS")]
    pub nic: DeviceAddress,

    /// The NIC's own address in its network
    #[arg(long, value_name = "ADDR/PREFIX")]
    pub ip: Cidr,

    /// The router to other networks
    #[arg(long, value_name = "ADDR")]
    gateway: Option<IpAddr>,

    /// The largest IP packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u16,

    /// Put the frames into this VLAN
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,

    /// How a file is kept from changing meanwhile
    #[arg(long, value_enum, default_value_t)]
    stability: StabilityArg,

    /// How to wait for the NIC
    #[arg(long, value_enum, default_value_t)]
    wait: WaitArg,

    /// Frames handed to the NIC with one doorbell, 1 to 256
    #[arg(long, value_name = "FRAMES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    burst: u16,

    /// Bytes of files that may stay mapped for the NIC at once
    #[arg(long, value_name = "SIZE")]
    window_budget: Option<Size>,
}

/// `--wait`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum WaitArg {
    /// Look again and again: the quickest, and a whole processor
    Poll,
    /// Sleep until the NIC interrupts
    Irq,
    /// Look for a moment, then sleep
    #[default]
    Adaptive,
}

/// `--stability`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum StabilityArg {
    /// A lease where there is one, else trust
    #[default]
    Auto,
    /// A lease, or do not send
    Lease,
    /// Trust that nobody changes it; its size and times are checked every 16 MiB and at the end. Stores through another process's
    /// shared mapping can go unseen
    Trust,
}

impl PortArgs {
    /// Opens the NIC, unless `stop` is set while one is waited for. The simulator, where there is one, ends when it is dropped: after the port.
    pub fn open(&self, stop: &Arc<AtomicBool>) -> Result<(Port, Option<Rig>), Failure> {
        let options = OpenOptions { mtu: Some(self.mtu), stop: Some(Arc::clone(stop)), ..OpenOptions::default() };
        let Device { nic, rig } = device::open(&self.nic, options)?;
        let interface = Interface::new(nic.mac(), self.ip, self.gateway, self.mtu, self.vlan)?;
        let config = PortConfig { window_budget: self.window_budget.map_or(u64::MAX, |size| size.bytes()), ..PortConfig::default() };
        Ok((Port::new(nic, interface, config)?, rig))
    }

    pub fn wait(&self) -> Wait {
        match self.wait {
            WaitArg::Poll => Wait::Poll,
            WaitArg::Irq => Wait::Interrupt,
            WaitArg::Adaptive => Wait::Adaptive,
        }
    }

    pub fn stability(&self) -> Stability {
        match self.stability {
            StabilityArg::Auto => Stability::Auto,
            StabilityArg::Lease => Stability::Lease,
            StabilityArg::Trust => Stability::Trust,
        }
    }

    pub fn burst(&self) -> usize {
        self.burst.into()
    }
}
