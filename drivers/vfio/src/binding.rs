//! Handing a NIC to vfio-pci, and giving it back to the kernel's driver.

use std::io;
use std::path::Path;

use crate::address::PciAddress;
use crate::error::VfioError;
use crate::listing::Controller;
use crate::sysfs::{Sysfs, link, text};

const VFIO_PCI: &str = "vfio-pci";

/// What [`Sysfs::bind`] or [`Sysfs::unbind`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebound {
    /// The driver before.
    pub before: Option<String>,
    /// The driver now.
    pub now: Option<String>,
    /// The group whose file (/dev/vfio/NUMBER) a user without root's rights has to be allowed to open, after a bind; `None` without an IOMMU,
    /// where no such right helps.
    pub group: Option<u32>,
}

impl Rebound {
    /// Whether anything was changed.
    pub fn changed(&self) -> bool {
        self.before != self.now
    }
}

impl Sysfs {
    /// Hands the NIC at `address` to vfio-pci. Nothing is done when it has it already.
    ///
    /// # Errors
    /// [`VfioError::InUse`] unless `force`, when an interface of the NIC carries an address or a default route, or belongs to a bridge, a
    /// bond or the like;
    /// [`VfioError::NoIommu`], [`VfioError::NoVfio`], [`VfioError::NoPermission`], [`VfioError::Binding`].
    pub fn bind(&self, address: PciAddress, force: bool) -> Result<Rebound, VfioError> {
        let Controller { driver: before, group, obstacle, interfaces, .. } = self.controller(address)?;
        // Without an IOMMU there is only a group, made for the device, when VFIO's mode for that is on.
        if let Some(error @ VfioError::NoIommu { .. }) = obstacle
            && self.no_iommu_mode() != Some(true)
        {
            return Err(error);
        }
        let group = group.filter(|group| !group.without_iommu).map(|group| group.number);
        if before.as_deref() == Some(VFIO_PCI) {
            return Ok(Rebound { now: before.clone(), before, group });
        }
        if !force {
            let mut uses = Vec::new();
            for interface in interfaces {
                uses.extend(self.uses(&interface).map_err(|error| VfioError::system("looking for the addresses of interfaces", error))?);
            }
            if !uses.is_empty() {
                return Err(VfioError::InUse { address, uses });
            }
        }
        if !self.vfio_driver().exists() {
            self.kernel.load(VFIO_PCI).map_err(|error| VfioError::NoVfio {
                missing: format!("the module vfio-pci is not loaded and cannot be ({error})"),
                remedy: "loading it needs root: `sudo modprobe vfio-pci`; a kernel without it needs CONFIG_VFIO_PCI".into(),
            })?;
        }
        let taken = self.rebind(address, VFIO_PCI, "bound to vfio-pci");
        let now = self.driver(address);
        if now.as_deref() == Some(VFIO_PCI) {
            return Ok(Rebound { before, now, group });
        }
        // Not taken: the kernel's driver gets it back, and what went wrong first is what is reported.
        let reason = match taken {
            Err(error @ VfioError::NoPermission { .. }) => {
                // As it was, whichever of the steps was refused.
                let _ = self.order(address, "returned", &self.device(address).join("driver_override"), "\n");
                return Err(error);
            }
            Err(error) => error.to_string(),
            Ok(()) => "vfio-pci did not take it (`dmesg` says why)".into(),
        };
        let returned = self.rebind(address, "", "returned");
        let reason = match (returned, self.driver(address)) {
            (_, Some(driver)) => format!("{reason}; it is driven by {driver} again"),
            (Err(error), None) => format!("{reason}; and it has no driver now: {error}"),
            (Ok(()), None) => format!("{reason}; and it has no driver now"),
        };
        Err(VfioError::Binding { address, what: "bound to vfio-pci", reason })
    }

    /// Gives the NIC at `address` back to the kernel's driver. Nothing is done when it is not with vfio-pci.
    ///
    /// # Errors
    /// [`VfioError::Busy`] while a process has it open; [`VfioError::NoPermission`], [`VfioError::Binding`].
    pub fn unbind(&self, address: PciAddress) -> Result<Rebound, VfioError> {
        let Controller { driver: before, group, .. } = self.controller(address)?;
        let overridden = text(&self.device(address).join("driver_override")).is_some_and(|name| name == VFIO_PCI);
        if before.as_deref() != Some(VFIO_PCI) && !overridden {
            return Ok(Rebound { now: before.clone(), before, group: None });
        }
        // The kernel would wait, for as long as the device is open, in the write to `unbind`.
        if let Some(group) = group {
            let holders = self.holders(&group);
            if !holders.0.is_empty() {
                return Err(VfioError::Busy { address, holders });
            }
        }
        // The driver's module may never have been loaded; without root this fails, and so does what follows.
        if let Some(alias) = text(&self.device(address).join("modalias")) {
            let _ = self.kernel.load(&alias);
        }
        self.rebind(address, "", "given back")?;
        Ok(Rebound { before, now: self.driver(address), group: None })
    }

    fn driver(&self, address: PciAddress) -> Option<String> {
        link(&self.device(address).join("driver"))
    }

    /// Sets whose the device shall be (empty: whose it is by its ids), takes it from its driver, and lets the drivers be asked again. Each
    /// step may find that somebody else was faster: what counts is the driver at the end.
    fn rebind(&self, address: PciAddress, driver: &str, what: &'static str) -> Result<(), VfioError> {
        let device = self.device(address);
        self.order(address, what, &device.join("driver_override"), &format!("{driver}\n"))?;
        if device.join("driver").exists() {
            self.order(address, what, &device.join("driver/unbind"), &address.to_string()).or_else(|error| {
                let gone = !device.join("driver").exists();
                if gone { Ok(()) } else { Err(error) }
            })?;
        }
        self.order(address, what, &self.sys.join("bus/pci/drivers_probe"), &address.to_string())
    }

    fn order(&self, address: PciAddress, what: &'static str, path: &Path, value: &str) -> Result<(), VfioError> {
        self.kernel.write(path, value).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => VfioError::NoPermission {
                path: path.to_owned(),
                remedy: format!("a device can only be {what} by root: run this one command with sudo; using it afterwards needs no root"),
            },
            _ => VfioError::Binding { address, what, reason: format!("{}: {error}", path.display()) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    const NIC: &str = "0000:00:03.0";

    /// An idle NIC with the kernel's e1000, which would take it again.
    fn machine() -> (Machine, PciAddress) {
        let machine = Machine::new();
        let address = machine.nic(NIC, Some("e1000"), Some(7));
        machine.interface(NIC, "net", "eth0");
        machine.kernel.state.lock().unwrap().native = Some("e1000".into());
        (machine, address)
    }

    fn drivers(done: &Rebound) -> (Option<&str>, Option<&str>) {
        (done.before.as_deref(), done.now.as_deref())
    }

    #[test]
    fn a_nic_goes_to_vfio_pci_and_back() {
        let (machine, address) = machine();
        let bound = machine.sysfs.bind(address, false).unwrap();
        assert_eq!((drivers(&bound), bound.group, bound.changed()), ((Some("e1000"), Some("vfio-pci")), Some(7), true));
        assert_eq!(machine.take_log(), ["load vfio-pci", "driver_override=vfio-pci", "unbind=0000:00:03.0", "drivers_probe=0000:00:03.0"]);
        let returned = machine.sysfs.unbind(address).unwrap();
        assert_eq!(drivers(&returned), (Some("vfio-pci"), Some("e1000")));
        assert_eq!(machine.take_log(), ["driver_override=", "unbind=0000:00:03.0", "drivers_probe=0000:00:03.0"]);
    }

    #[test]
    fn a_second_time_there_is_nothing_to_do() {
        let (machine, address) = machine();
        assert!(!machine.sysfs.unbind(address).unwrap().changed());
        machine.sysfs.bind(address, false).unwrap();
        machine.take_log();
        assert!(!machine.sysfs.bind(address, false).unwrap().changed());
        assert!(machine.take_log().is_empty());
    }

    #[test]
    fn a_nic_that_carries_traffic_is_refused_unless_forced() {
        let (machine, address) = machine();
        let refusal = || match machine.sysfs.bind(address, false) {
            Err(error @ VfioError::InUse { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        machine.carries("eth0", "fe80::1");
        machine.carries("eth1", "10.0.0.1");
        machine.carries("eth0", "10.0.0.2");
        let text = refusal();
        assert!(
            text.contains("eth0 has the address 10.0.0.2") && text.contains("--force 0000:00:03.0") && !text.contains("fe80"),
            "{text}"
        );
        machine.kernel.state.lock().unwrap().addresses.clear();

        let columns = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        machine.write("proc/net/route", &format!("{columns}eth1\t00000000\t0100000A\t3\t0\t0\t0\t00000000\neth0\t0000000A\t0\t1\t0\t0\t0\t00FFFFFF\neth0\t00000000\t0\t3\t0\t0\t0\t00000000\n"));
        assert!(refusal().contains("the default route goes through eth0"));
        let zeros = "0".repeat(32);
        machine.write("proc/net/route", columns);
        machine.write(
            "proc/net/ipv6_route",
            &format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 200200 lo\n{zeros} 00 {zeros} 00 {zeros} 400 1 0 3 eth0\n"),
        );
        assert!(refusal().contains("the IPv6 default route goes through eth0"));
        machine.write("proc/net/ipv6_route", "");

        let class = machine.root.path().join("sys/class/net");
        std::fs::create_dir_all(class.join("br0")).unwrap();
        for (from, to) in [("br0", "eth0/master"), ("br0", "eth0/upper_br0"), ("eth0.5", "eth0/upper_eth0.5")] {
            std::os::unix::fs::symlink(class.join(from), class.join(to)).unwrap();
        }
        assert!(refusal().contains("in use by the kernel: eth0 is a port of br0, eth0.5 is on top of eth0;"));
        assert!(machine.take_log().is_empty(), "nothing was ordered");
        assert!(machine.sysfs.bind(address, true).unwrap().changed());
    }

    #[test]
    fn a_nic_without_an_iommu_keeps_its_driver() {
        let machine = Machine::new();
        let address = machine.nic(NIC, Some("e1000"), None);
        assert!(matches!(machine.sysfs.bind(address, true), Err(VfioError::NoIommu { .. })));
        assert!(machine.take_log().is_empty());
        // Unless VFIO was told to do without.
        machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        let bound = machine.sysfs.bind(address, false).unwrap();
        assert_eq!((drivers(&bound), bound.group), ((Some("e1000"), Some("vfio-pci")), None));
    }

    #[test]
    fn a_missing_module_is_named_before_anything_is_changed() {
        let (machine, address) = machine();
        machine.kernel.state.lock().unwrap().without_modules = true;
        let error = machine.sysfs.bind(address, false).unwrap_err().to_string();
        assert!(error.contains("modprobe vfio-pci") && error.contains("not permitted"), "{error}");
        assert_eq!(machine.take_log(), ["load vfio-pci"]);
    }

    #[test]
    fn when_vfio_pci_does_not_take_it_the_kernels_driver_gets_it_back() {
        let (machine, address) = machine();
        machine.kernel.state.lock().unwrap().vfio_refuses = true;
        let error = machine.sysfs.bind(address, false).unwrap_err().to_string();
        assert!(error.contains("vfio-pci did not take it") && error.contains("driven by e1000 again"), "{error}");
        assert_eq!(machine.sysfs.driver(address).as_deref(), Some("e1000"));
    }

    #[test]
    fn without_root_the_error_says_so() {
        let (machine, address) = machine();
        machine.kernel.state.lock().unwrap().refused = Some(("driver_override", io::ErrorKind::PermissionDenied));
        let error = machine.sysfs.bind(address, false).unwrap_err().to_string();
        assert!(error.contains("no permission for") && error.contains("only be bound to vfio-pci by root"), "{error}");
        assert_eq!(machine.sysfs.driver(address).as_deref(), Some("e1000"));
    }

    #[test]
    fn a_device_that_a_process_has_open_is_not_taken_from_it() {
        let (machine, address) = machine();
        machine.sysfs.bind(address, false).unwrap();
        machine.take_log();
        machine.process(41, "other", "dev/vfio/8");
        machine.process(42, "pagewire", "dev/vfio/7");
        let error = machine.sysfs.unbind(address).unwrap_err().to_string();
        assert!(error.contains("in use by pagewire (process 42)"), "{error}");
        assert!(machine.take_log().is_empty());
    }

    #[test]
    fn a_driver_that_does_not_let_go_keeps_its_nic() {
        let (machine, address) = machine();
        machine.kernel.state.lock().unwrap().refused = Some(("unbind", io::ErrorKind::NotFound));
        assert!(machine.sysfs.bind(address, false).unwrap_err().to_string().contains("driven by e1000"));
    }
}
