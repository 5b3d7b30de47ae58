//! `pagewire bind` and `pagewire unbind`: a NIC from the kernel's driver to vfio-pci, and back.

use clap::Args;
use vfio::{PciAddress, Rebound, Sysfs};

use super::{Failure, Outcome, print};

/// Take a NIC from the kernel's driver, so that pagewire can drive it
#[derive(Args)]
#[command(after_help = "\
Example:
    sudo pagewire bind 0000:03:00.0

Refuses a NIC that carries an address or a default route, or is part of a bridge or bond, unless --force.
Afterwards a user who may open /dev/vfio/GROUP can use it: sudo chown $USER /dev/vfio/GROUP")]
pub struct Bind {
    /// The NIC, as `pagewire nics` lists it
    #[arg(value_name = "ADDRESS")]
    address: PciAddress,

    /// Also a NIC that is in use
    #[arg(long)]
    force: bool,
}

/// Give a NIC back to the kernel's driver
#[derive(Args)]
pub struct Unbind {
    /// The NIC, as `pagewire nics` lists it
    #[arg(value_name = "ADDRESS")]
    address: PciAddress,
}

impl Bind {
    pub fn run(self) -> Result<Outcome, Failure> {
        report(self.address, &Sysfs::default().bind(self.address, self.force)?)
    }
}

impl Unbind {
    pub fn run(self) -> Result<Outcome, Failure> {
        report(self.address, &Sysfs::default().unbind(self.address)?)
    }
}

fn report(address: PciAddress, rebound: &Rebound) -> Result<Outcome, Failure> {
    let now = rebound.now.as_deref().unwrap_or("no driver");
    let mut text = match (rebound.changed(), &rebound.before) {
        (true, Some(before)) => format!("{address} went from {before} to {now}\n"),
        (true, None) => format!("{address} has {now} now\n"),
        (false, _) => format!("{address} has {now} already\n"),
    };
    if rebound.group.is_none() && now == "vfio-pci" {
        text.push_str(&format!("without an IOMMU: pci:{address},noiommu=on, as root, and every byte of a file is copied\n"));
    }
    if let Some(group) = rebound.group {
        text.push_str(&format!("without root, it takes the right to open /dev/vfio/{group}: sudo chown $USER /dev/vfio/{group}\n"));
    }
    print(&text)?;
    Ok(Outcome::Done)
}
