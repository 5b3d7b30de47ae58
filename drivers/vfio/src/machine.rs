//! A made machine for tests: a tree of files, and a kernel that obeys orders as Linux does.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::address::PciAddress;
use crate::interface::InterfaceAddress;
use crate::sysfs::{Kernel, Sysfs, text};

/// A machine without devices and with an IOMMU; vfio-pci is not loaded.
pub(crate) struct Machine {
    pub root: TempDir,
    pub sysfs: Sysfs,
    pub kernel: &'static MadeKernel,
}

#[derive(Debug, Default)]
pub(crate) struct MadeKernel {
    sys: PathBuf,
    pub state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The driver that takes a device by its ids.
    pub native: Option<String>,
    pub addresses: Vec<InterfaceAddress>,
    /// Modules cannot be loaded.
    pub without_modules: bool,
    /// vfio-pci does not take devices.
    pub vfio_refuses: bool,
    /// What a write to an attribute of this name gives.
    pub refused: Option<(&'static str, io::ErrorKind)>,
    /// The orders, in short.
    pub log: Vec<String>,
}

impl Kernel for MadeKernel {
    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (refused, native, vfio_refuses) = {
            let mut state = self.state.lock().unwrap();
            state.log.push(format!("{name}={}", value.trim()));
            (state.refused, state.native.clone(), state.vfio_refuses)
        };
        if let Some((_, error)) = refused.filter(|(which, _)| *which == name) {
            return Err(error.into());
        }
        let device = |address: &str| self.sys.join("bus/pci/devices").join(address);
        match name {
            "driver_override" => fs::write(path, value),
            "unbind" => fs::remove_file(device(value).join("driver")),
            "drivers_probe" => {
                let wanted = text(&device(value).join("driver_override")).filter(|driver| !driver.is_empty());
                let driver = if wanted.is_some() && vfio_refuses { None } else { wanted.or(native) };
                match driver.filter(|driver| self.sys.join("bus/pci/drivers").join(driver).exists()) {
                    Some(driver) if !device(value).join("driver").exists() => {
                        symlink(self.sys.join("bus/pci/drivers").join(driver), device(value).join("driver"))
                    }
                    _ => Ok(()),
                }
            }
            _ => panic!("an order to {path:?}"),
        }
    }

    fn load(&self, module: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("load {module}"));
        if state.without_modules {
            return Err(io::Error::other("Operation not permitted"));
        }
        fs::create_dir_all(self.sys.join("bus/pci/drivers").join(module))
    }

    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        Ok(self.state.lock().unwrap().addresses.clone())
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name| root.path().join(name);
        for directory in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers",
            "sys/kernel/iommu_groups",
            "sys/class/net",
            "sys/class/iommu/dmar0",
            "dev",
            "proc/net",
        ] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        let kernel: &'static MadeKernel = Box::leak(Box::new(MadeKernel { sys: path("sys"), state: Mutex::default() }));
        let sysfs = Sysfs::new(path("sys")).with_dev(path("dev")).with_proc(path("proc")).with_kernel(kernel);
        Self { root, sysfs, kernel }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A device with vendor and device, class and driver, in a group.
    pub(crate) fn device(&self, address: &str, ids: (u16, u16), class: u32, driver: Option<&str>, group: Option<u32>) -> PciAddress {
        let directory = format!("sys/bus/pci/devices/{address}");
        for (name, value) in [
            ("vendor", format!("{:#06x}", ids.0)),
            ("device", format!("{:#06x}", ids.1)),
            ("class", format!("{class:#08x}")),
            ("revision", "0x03".into()),
        ] {
            self.write(&format!("{directory}/{name}"), &format!("{value}\n"));
        }
        self.write(&format!("{directory}/driver_override"), "(null)\n");
        let directory = self.root.path().join(directory);
        if let Some(driver) = driver {
            let path = self.root.path().join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&path).unwrap();
            symlink(path, directory.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let path = self.root.path().join("sys/kernel/iommu_groups").join(group.to_string());
            fs::create_dir_all(path.join("devices")).unwrap();
            symlink(&path, directory.join("iommu_group")).unwrap();
            symlink(&directory, path.join("devices").join(address)).unwrap();
        }
        address.parse().unwrap()
    }

    /// An 82540EM with an interface.
    pub(crate) fn nic(&self, address: &str, driver: Option<&str>, group: Option<u32>) -> PciAddress {
        self.device(address, (0x8086, 0x100e), 0x02_0000, driver, group)
    }

    pub(crate) fn interface(&self, address: &str, below: &str, name: &str) {
        fs::create_dir_all(self.root.path().join(format!("sys/bus/pci/devices/{address}/{below}/{name}"))).unwrap();
        fs::create_dir_all(self.root.path().join(format!("sys/class/net/{name}"))).unwrap();
    }

    pub(crate) fn carries(&self, interface: &str, address: &str) {
        let address: IpAddr = address.parse().unwrap();
        self.kernel.state.lock().unwrap().addresses.push(InterfaceAddress { interface: interface.into(), address });
    }

    /// A process that has a file open.
    pub(crate) fn process(&self, number: u32, name: &str, open: &str) {
        self.write(&format!("proc/{number}/comm"), &format!("{name}\n"));
        let descriptors = self.root.path().join(format!("proc/{number}/fd"));
        fs::create_dir_all(&descriptors).unwrap();
        symlink(self.root.path().join(open), descriptors.join("7")).unwrap();
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.kernel.state.lock().unwrap().log)
    }
}
