//! The NICs of this machine, and whether they can be opened.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hal::PciIdentity;
use pci_ids::FromId;
use rustix::fs::{Access, access};

use crate::address::PciAddress;
use crate::error::{Holders, VfioError};
use crate::sysfs::{Sysfs, hexadecimal, link, names, text};

/// A network controller.
#[derive(Debug)]
pub struct Controller {
    /// Where it is.
    pub address: PciAddress,
    /// Who it is.
    pub identity: PciIdentity,
    /// Its name in the PCI ID database.
    pub name: String,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// The kernel's network interfaces on it.
    pub interfaces: Vec<String>,
    /// Its IOMMU group.
    pub group: Option<Group>,
    /// Why it cannot be opened now; `None` when it can.
    pub obstacle: Option<VfioError>,
}

impl Controller {
    /// Whether it can be opened as it is.
    pub fn usable(&self) -> bool {
        self.obstacle.is_none()
    }

    /// Whether it can be opened with [`OpenOptions::no_iommu`](crate::OpenOptions::no_iommu) alone, for copied frames.
    pub fn usable_without_iommu(&self) -> bool {
        matches!(self.obstacle, Some(VfioError::NoIommuMode(_)))
    }
}

/// Devices that the IOMMU cannot tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number: the group is /dev/vfio/NUMBER.
    pub number: u32,
    /// All devices in it.
    pub members: Vec<Member>,
    /// There is no IOMMU behind it, only VFIO's mode without one.
    pub without_iommu: bool,
}

/// A device of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: PciAddress,
    /// Its driver.
    pub driver: Option<String>,
}

impl Member {
    /// Whether it is driven by something that may use the IOMMU for itself. Ports of PCI Express and the drivers that make no DMA may stay.
    fn hinders(&self) -> bool {
        !matches!(self.driver.as_deref(), None | Some("pcieport" | "pci-stub" | "shpchp")) && !self.driver.as_deref().is_some_and(is_vfio)
    }
}

/// vfio-pci or one of its variants for a vendor's devices.
fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

impl Sysfs {
    /// All network controllers (class 02), by address.
    pub fn controllers(&self) -> Vec<Controller> {
        self.devices().into_iter().filter_map(|address| self.controller(address).ok()).collect()
    }

    /// The network controller at `address`.
    ///
    /// # Errors
    /// [`VfioError::NoDevice`], [`VfioError::NotANic`].
    pub fn controller(&self, address: PciAddress) -> Result<Controller, VfioError> {
        let device = self.device(address);
        let id = |name| hexadecimal(&device.join(name));
        let (Some(vendor), Some(product), Some(class)) = (id("vendor"), id("device"), id("class")) else {
            return Err(VfioError::NoDevice(address));
        };
        if class >> 16 != NETWORK {
            return Err(VfioError::NotANic { address, class, name: class_name(class) });
        }
        let identity = PciIdentity { vendor: vendor as u16, device: product as u16, class, revision: id("revision").unwrap_or(0) as u8 };
        let (driver, group) = (link(&device.join("driver")), self.group(address));
        let obstacle = self.obstacle(address, driver.as_deref(), group.as_ref());
        Ok(Controller { address, identity, name: device_name(identity), driver, interfaces: self.interfaces(address), group, obstacle })
    }

    /// The group of a device.
    pub fn group(&self, address: PciAddress) -> Option<Group> {
        let path = self.device(address).join("iommu_group");
        let number = link(&path)?.parse().ok()?;
        let member = |address: PciAddress| Member { address, driver: link(&self.device(address).join("driver")) };
        let mut members: Vec<Member> = names(&path.join("devices")).filter_map(|name| name.parse().ok()).map(member).collect();
        members.sort_by_key(|member| member.address);
        Some(Group { number, members, without_iommu: text(&path.join("name")).as_deref() == Some("vfio-noiommu") })
    }

    /// The first thing that keeps a NIC from being opened, in the order in which users put them right.
    fn obstacle(&self, address: PciAddress, driver: Option<&str>, group: Option<&Group>) -> Option<VfioError> {
        let Some(group) = group else {
            return Some(VfioError::NoIommu { address, remedy: self.iommu_remedy() });
        };
        if !driver.is_some_and(is_vfio) {
            return Some(VfioError::NotBound { address, driver: driver.map(str::to_owned) });
        }
        let hindering = group.members.iter().filter(|member| member.address != address && member.hinders());
        let members: Vec<_> = hindering.map(|member| (member.address, member.driver.clone().unwrap_or_default())).collect();
        if !members.is_empty() {
            return Some(VfioError::NotViable { address, group: group.number, members });
        }
        let files = [self.container(), self.group_file(group)];
        if let Some(error) = files.into_iter().find_map(|path| self.unreachable(path, group.number)) {
            return Some(error);
        }
        let holders = self.holders(group);
        if !holders.0.is_empty() {
            return Some(VfioError::Busy { address, holders });
        }
        // The last one: with it alone, the device can be opened by who accepts it.
        group.without_iommu.then_some(VfioError::NoIommuMode(address))
    }

    /// Why a file below /dev/vfio cannot be opened, as far as that shows without opening it.
    pub(crate) fn unreachable(&self, path: PathBuf, group: u32) -> Option<VfioError> {
        match access(&path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => None,
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Some(self.no_permission(path, group)),
            Err(_) => Some(self.no_vfio(path)),
        }
    }

    pub(crate) fn no_permission(&self, path: PathBuf, group: u32) -> VfioError {
        let owner = fs::metadata(&path)
            .map_or_else(|_| String::new(), |file| format!("it belongs to user {} with mode {:o}; ", file.uid(), file.mode() & 0o777));
        let remedy = if path == self.container() {
            format!("{owner}`sudo chmod 0666 {}` (the container alone gives no right to any device)", path.display())
        } else {
            format!(
                "{owner}`sudo chown $USER {}`, until the next boot; for good, a udev rule: SUBSYSTEM==\"vfio\", \
                 KERNEL==\"{group}\", GROUP=\"vfio\", \
                 MODE=\"0660\", and the user in that group",
                path.display()
            )
        };
        VfioError::NoPermission { path, remedy }
    }

    /// A file below /dev/vfio is missing: why.
    pub(crate) fn no_vfio(&self, path: PathBuf) -> VfioError {
        let iommufd = [self.dev.join("vfio/devices"), self.dev.join("iommu")].into_iter().find(|path| path.exists());
        if let Some(found) = iommufd.filter(|_| path == self.container()) {
            return VfioError::IommufdOnly { found: found.display().to_string() };
        }
        let remedy = if self.vfio_driver().exists() {
            "vfio-pci is loaded: in a container, pass /dev/vfio in (docker run --device /dev/vfio/vfio --device /dev/vfio/N \
             --ulimit memlock=-1)"
        } else {
            "`sudo modprobe vfio-pci` loads it; a kernel without it needs CONFIG_VFIO_PCI"
        };
        VfioError::NoVfio { missing: format!("{} does not exist", path.display()), remedy: remedy.into() }
    }

    /// Why there are no IOMMU groups.
    pub(crate) fn iommu_remedy(&self) -> String {
        format!("{}; {}", self.iommu_option(), self.no_iommu_option())
    }

    /// The second best: VFIO without an IOMMU, which only copies.
    fn no_iommu_option(&self) -> &'static str {
        match (self.no_iommu_mode(), self.has_vfio()) {
            (Some(true), _) => {
                "VFIO's mode without an IOMMU is on: `pagewire bind` takes the device then, and pci:ADDRESS,noiommu=on opens it, as root, for \
                 copied frames only"
            }
            (None, true) => "this kernel's VFIO has no mode without an IOMMU either (CONFIG_VFIO_NOIOMMU)",
            _ => {
                "or, without any protection from the device, as root and for copied frames only: `modprobe vfio \
                 enable_unsafe_noiommu_mode=1` (or 1 into /sys/module/vfio/parameters/enable_unsafe_noiommu_mode), then `pagewire bind`, and \
                 pci:ADDRESS,noiommu=on"
            }
        }
    }

    fn iommu_option(&self) -> String {
        if names(&self.sys.join("class/iommu")).next().is_some() {
            return "this machine has one, but the device is on a bus that it does not reach; move it to another slot".into();
        }
        let intel = text(&self.proc.join("cpuinfo")).is_some_and(|cpu| cpu.contains("GenuineIntel"));
        let on = text(&self.proc.join("cmdline")).is_some_and(|line| line.split(' ').any(|option| option.starts_with("intel_iommu=on")));
        let parameter = match (intel, on) {
            (true, false) => "boot with the kernel parameter intel_iommu=on and switch VT-d on in the firmware",
            (true, true) => "intel_iommu=on is set: switch VT-d on in the firmware",
            (false, _) => "switch the IOMMU on in the firmware (AMD-Vi, IOMMU or SMMU)",
        };
        format!(
            "{parameter}; in a virtual machine, give it one (QEMU: -device intel-iommu,intremap=on,caching-mode=on with -machine \
             q35,kernel-irqchip=split)"
        )
    }

    /// The processes that have a group open, as far as this process may see them.
    pub(crate) fn holders(&self, group: &Group) -> Holders {
        let path = self.group_file(group);
        let processes = names(&self.proc).filter_map(|name| name.parse::<u32>().ok());
        let holding = processes.filter(|process| {
            let descriptors = self.proc.join(process.to_string()).join("fd");
            names(&descriptors).any(|name| fs::read_link(descriptors.join(name)).is_ok_and(|target| target == path))
        });
        Holders(holding.map(|process| (process, text(&self.proc.join(process.to_string()).join("comm")).unwrap_or_default())).collect())
    }
}

/// The base class of network controllers.
const NETWORK: u32 = 0x02;

/// Vendor and product in words, as far as the PCI ID database knows them.
fn device_name(identity: PciIdentity) -> String {
    let PciIdentity { vendor, device, .. } = identity;
    match (pci_ids::Vendor::from_id(vendor), pci_ids::Device::from_vid_pid(vendor, device)) {
        (Some(vendor), Some(device)) => format!("{} {}", vendor.name(), device.name()),
        (Some(vendor), None) => format!("{} device {device:04x}", vendor.name()),
        (None, _) => format!("device {identity}"),
    }
}

fn class_name(class: u32) -> String {
    let (class, subclass) = ((class >> 16) as u8, (class >> 8) as u8);
    let found = pci_ids::Classes::iter().find(|entry| entry.id() == class);
    let subclasses = found.into_iter().flat_map(|entry| entry.subclasses());
    let name =
        subclasses.into_iter().find(|entry| entry.id() == subclass).map(|entry| entry.name()).or_else(|| found.map(|entry| entry.name()));
    name.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use std::os::unix::fs::PermissionsExt;

    const NIC: &str = "0000:00:03.0";

    fn obstacle(machine: &Machine) -> String {
        machine.sysfs.controller(NIC.parse().unwrap()).unwrap().obstacle.map_or_else(|| "usable".into(), |error| error.to_string())
    }

    /// A NIC with vfio-pci in group 7, whose files are there.
    fn bound() -> Machine {
        let machine = Machine::new();
        machine.nic(NIC, Some("vfio-pci"), Some(7));
        machine.write("dev/vfio/vfio", "");
        machine.write("dev/vfio/7", "");
        machine
    }

    #[test]
    fn nics_are_listed_with_all_that_is_known_of_them() {
        let machine = Machine::new();
        machine.device("0000:00:00.0", (0x8086, 0x29c0), 0x06_0000, None, Some(0));
        machine.nic("0000:02:00.0", Some("e1000"), Some(7));
        machine.interface("0000:02:00.0", "net", "eth0");
        machine.device("0000:01:00.0", (0x1af4, 0x1041), 0x02_0000, Some("virtio-pci"), Some(8));
        machine.interface("0000:01:00.0", "virtio0/net", "eth1");
        machine.device("0000:03:00.0", (0xfff1, 1), 0x02_8000, None, None);
        let nics = machine.sysfs.controllers();
        let seen: Vec<_> =
            nics.iter().map(|nic| (nic.address.to_string(), nic.name.as_str(), nic.driver.as_deref(), nic.interfaces.join(" "))).collect();
        assert_eq!(
            seen,
            [
                ("0000:01:00.0".into(), "Red Hat, Inc. Virtio 1.0 network device", Some("virtio-pci"), "eth1".into()),
                ("0000:02:00.0".into(), "Intel Corporation 82540EM Gigabit Ethernet Controller", Some("e1000"), "eth0".into()),
                ("0000:03:00.0".into(), "device fff1:0001", None, String::new()),
            ]
        );
        let group = nics[1].group.as_ref().unwrap();
        assert_eq!((group.number, group.members.len(), nics[1].identity.revision), (7, 1, 3));
        assert!(nics.iter().all(|nic| !nic.usable()));
    }

    #[test]
    fn a_bound_nic_is_usable() {
        assert_eq!(obstacle(&bound()), "usable");
    }

    #[test]
    fn the_process_that_has_it_open_is_named() {
        let machine = bound();
        machine.process(42, "testpmd", "dev/vfio/7");
        assert!(obstacle(&machine).contains("in use by testpmd (process 42)"));
    }

    #[test]
    fn a_nic_with_another_driver_is_to_be_bound() {
        let machine = Machine::new();
        machine.nic(NIC, Some("e1000"), Some(7));
        assert_eq!(obstacle(&machine), "0000:00:03.0 is driven by e1000; `pagewire bind 0000:00:03.0` hands it to vfio-pci");
    }

    #[test]
    fn without_an_iommu_the_missing_option_is_named() {
        let machine = Machine::new();
        machine.nic(NIC, Some("e1000"), None);
        assert!(obstacle(&machine).contains("move it to another slot"));
        fs::remove_dir_all(machine.root.path().join("sys/class/iommu")).unwrap();
        assert!(obstacle(&machine).contains("AMD-Vi") && obstacle(&machine).contains("-device intel-iommu"));
        machine.write("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
        machine.write("proc/cmdline", "quiet\n");
        assert!(obstacle(&machine).contains("kernel parameter intel_iommu=on"));
        machine.write("proc/cmdline", "quiet intel_iommu=on\n");
        assert!(obstacle(&machine).contains("intel_iommu=on is set: switch VT-d on"));
    }

    #[test]
    fn the_other_members_of_a_group_are_named() {
        let machine = bound();
        machine.nic("0000:00:03.1", Some("e1000"), Some(7));
        machine.device("0000:00:03.2", (0x8086, 1), 0x01_0000, None, Some(7));
        machine.device("0000:00:1c.0", (0x8086, 2), 0x06_0400, Some("pcieport"), Some(7));
        machine.nic("0000:00:03.3", Some("mlx5_vfio_pci"), Some(7));
        let text = obstacle(&machine);
        assert!(
            text.contains("group 7") && text.contains(": 0000:00:03.1 (e1000);") && text.contains("pagewire bind 0000:00:03.1"),
            "{text}"
        );
        assert!(!text.contains("03.2") && !text.contains("1c.0") && !text.contains("03.3"), "{text}");
    }

    #[test]
    fn the_mode_without_an_iommu_is_the_last_obstacle_and_says_how_to_accept_it() {
        let machine = bound();
        machine.write("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
        assert!(obstacle(&machine).contains("dev/vfio/noiommu-7 does not exist"), "{}", obstacle(&machine));
        machine.write("dev/vfio/noiommu-7", "");
        let text = obstacle(&machine);
        assert!(text.contains("no-IOMMU mode") && text.contains("pci:0000:00:03.0,noiommu=on"), "{text}");
        let controller = machine.sysfs.controller(NIC.parse().unwrap()).unwrap();
        assert!(!controller.usable() && controller.usable_without_iommu());
        machine.process(42, "pagewire", "dev/vfio/noiommu-7");
        assert!(obstacle(&machine).contains("in use by pagewire (process 42)"));
    }

    #[test]
    fn without_an_iommu_the_second_best_is_named_as_far_as_the_kernel_has_it() {
        let machine = Machine::new();
        machine.nic(NIC, Some("e1000"), None);
        assert!(obstacle(&machine).contains("or, without any protection") && obstacle(&machine).contains("enable_unsafe_noiommu_mode=1"));
        machine.write("sys/module/vfio/refcnt", "0\n");
        assert!(obstacle(&machine).ends_with("has no mode without an IOMMU either (CONFIG_VFIO_NOIOMMU)"), "{}", obstacle(&machine));
        machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
        assert!(obstacle(&machine).contains("enable_unsafe_noiommu_mode=1"));
        machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        assert!(obstacle(&machine).contains("is on: `pagewire bind` takes the device then"));
    }

    #[test]
    fn what_is_missing_of_vfio_is_named() {
        let machine = bound();
        fs::remove_file(machine.root.path().join("dev/vfio/7")).unwrap();
        assert!(obstacle(&machine).contains("dev/vfio/7 does not exist; vfio-pci is loaded: in a container"), "{}", obstacle(&machine));
        fs::remove_dir_all(machine.root.path().join("dev/vfio")).unwrap();
        assert!(obstacle(&machine).contains("dev/vfio/vfio does not exist"));
        machine.write("dev/vfio/devices/vfio0", "");
        let text = obstacle(&machine);
        assert!(text.contains("only through iommufd") && text.contains("CONFIG_VFIO_CONTAINER"), "{text}");
    }

    #[test]
    fn missing_rights_come_with_the_rule_that_gives_them() {
        let machine = bound();
        let path = machine.root.path().join("dev/vfio/7");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // As root every file can be opened, so the question is put directly.
        let text = machine.sysfs.no_permission(path, 7).to_string();
        assert!(text.contains("with mode 600") && text.contains("chown") && text.contains("KERNEL==\"7\""), "{text}");
    }

    #[test]
    fn what_is_no_nic_is_refused() {
        let machine = Machine::new();
        let disk = machine.device("0000:00:1f.2", (0x8086, 0x2922), 0x01_0601, Some("ahci"), Some(3));
        let error = machine.sysfs.controller(disk).unwrap_err().to_string();
        assert!(error.contains("is not a NIC, its class is 010601 (SATA controller);"), "{error}");
        assert!(matches!(machine.sysfs.controller("00:09.0".parse().unwrap()), Err(VfioError::NoDevice(_))));
    }
}
