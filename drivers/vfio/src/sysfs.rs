//! Where the kernel tells about devices and takes orders: /sys, /proc and /dev.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::address::PciAddress;
use crate::interface::{self, InterfaceAddress};
use crate::listing::Group;

/// A kernel's file systems. Tests make a tree of their own.
#[derive(Debug, Clone)]
pub struct Sysfs {
    pub(crate) sys: PathBuf,
    pub(crate) dev: PathBuf,
    pub(crate) proc: PathBuf,
    pub(crate) kernel: &'static dyn Kernel,
}

/// What the tree alone cannot do: orders to the kernel, and questions that have no file.
pub(crate) trait Kernel: Sync + std::fmt::Debug {
    /// Writes an attribute.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;

    /// Loads a module, with those that it needs.
    fn load(&self, module: &str) -> io::Result<()>;

    /// The addresses that interfaces carry.
    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>>;
}

/// The kernel that this process runs on.
#[derive(Debug)]
struct Running;

impl Kernel for Running {
    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        // Never created: an attribute that is missing is an error.
        use std::io::Write;
        fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
    }

    fn load(&self, module: &str) -> io::Result<()> {
        let output = std::process::Command::new("modprobe").arg("--").arg(module).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        interface::addresses()
    }
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::new("/sys")
    }
}

impl Sysfs {
    /// The tree at `root`, which is `/sys` but for tests; /proc and /dev are where they always are.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { sys: root.into(), dev: "/dev".into(), proc: "/proc".into(), kernel: &Running }
    }

    /// The same with another /dev.
    #[must_use]
    pub fn with_dev(self, dev: impl Into<PathBuf>) -> Self {
        Self { dev: dev.into(), ..self }
    }

    /// The same with another /proc.
    #[must_use]
    pub fn with_proc(self, proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), ..self }
    }

    #[cfg(test)]
    pub(crate) fn with_kernel(self, kernel: &'static dyn Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// The directory of a device.
    pub fn device(&self, address: PciAddress) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address.to_string())
    }

    pub(crate) fn devices(&self) -> Vec<PciAddress> {
        let mut devices: Vec<PciAddress> = names(&self.sys.join("bus/pci/devices")).filter_map(|name| name.parse().ok()).collect();
        devices.sort();
        devices
    }

    pub(crate) fn vfio_driver(&self) -> PathBuf {
        self.sys.join("bus/pci/drivers/vfio-pci")
    }

    pub(crate) fn container(&self) -> PathBuf {
        self.dev.join("vfio/vfio")
    }

    /// The file that opens a group.
    pub(crate) fn group_file(&self, group: &Group) -> PathBuf {
        let name = if group.without_iommu { format!("noiommu-{}", group.number) } else { group.number.to_string() };
        self.dev.join("vfio").join(name)
    }

    /// Whether VFIO's mode without an IOMMU is on; `None` when the running vfio has no such mode, or is not loaded.
    pub(crate) fn no_iommu_mode(&self) -> Option<bool> {
        text(&self.sys.join("module/vfio/parameters/enable_unsafe_noiommu_mode")).map(|value| matches!(value.as_str(), "Y" | "1"))
    }

    /// Whether the module vfio is there.
    pub(crate) fn has_vfio(&self) -> bool {
        self.sys.join("module/vfio").exists()
    }
}

/// An attribute's text without the end of its line.
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// An attribute that holds a hexadecimal number.
pub(crate) fn hexadecimal(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path)?.trim_start_matches("0x"), 16).ok()
}

/// The last part of where a symbolic link leads: the name of a driver, a group, a bridge.
pub(crate) fn link(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// The names in a directory; none when it is not there.
pub(crate) fn names(path: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}
