//! A guest kernel with an IOMMU and VFIO, for one command.
//!
//! QEMU emulates the whole machine (no KVM, no privileges): Debian's cloud kernel boots in a few seconds, finds NICs behind a VT-d IOMMU,
//! the first at 0000:00:02.0 and each further one a slot on, binds them to vfio-pci, and runs the command as root.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use pagewire_hw_sim::rig::Model;
//! use pagewire_hw_sim::vm::{self, Streams, VmConfig, VmNic};
//!
//! let config = VmConfig { nics: vec![VmNic::new(Model::E1000)], ..VmConfig::new(["ls", "/sys/bus/pci/drivers/vfio-pci"]) };
//! let mut streams = Streams { stdin: None, stdout: &mut std::io::stdout(), stderr: &mut std::io::stderr() };
//! let exit = vm::run(config, &mut streams, &AtomicBool::new(false))?;
//! assert_eq!(exit.code, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the command finds
//! - Its own program, with the shared libraries that `ldd` lists, and busybox for everything else (`sh`, `ls`, …).
//! - The files that its arguments name (also behind `=` or `:`) and the [shares](VmConfig::shares), under the same absolute paths, on ext4.
//!   They are copies: what the guest writes is gone with it.
//! - The same working directory; an empty tmpfs with such files bound into it at /tmp, /run and /dev/shm.
//! - In /dev/kmsg all that the kernel says, also the IOMMU's faults (`DMAR:`).
//!
//! # Lifetime
//! QEMU ends with [`run`], and when this process ends, however it does.

mod backports;
mod busybox;
mod command_line;
mod console;
mod disk;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod package;
mod program;
mod script;
mod sockets;
mod tree;
mod wires;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hal::MacAddress;

pub use self::console::Streams;
pub use self::disk::DiskError;
pub use self::kernel::Kernel;
pub use self::modules::ModuleError;
pub use self::package::PackageError;
pub use self::program::ProgramError;
pub use self::script::PATH;
pub use self::tree::TreeError;
use crate::install::InstallError;
use crate::rig::{Model, RigError, VirtioOptions};
use crate::wire::{WireConfig, WireError};

/// Which driver of the guest has its NICs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NicDriver {
    /// vfio-pci, for a driver in user space.
    #[default]
    Vfio,
    /// The kernel's own, for its own network: interfaces eth0, eth1 and so on, without addresses and down. Debian's cloud kernels have a driver for
    /// virtio-net alone.
    Kernel,
}

/// A NIC of the guest, behind its IOMMU and bound to vfio-pci unless the [driver](VmConfig::driver) is another.
#[derive(Debug)]
pub struct VmNic {
    /// The model.
    pub model: Model,
    /// What it offers, if it is a virtio device. It goes through the IOMMU unless `iommu_platform` says otherwise.
    pub virtio: VirtioOptions,
    /// What it is plugged into. Unlike the rig's, this driver is not held back when the other end of a `Dgram` or `Local` wire reads too
    /// slowly: QEMU drops frames of the Intel models once 10,000 are waiting.
    pub wire: WireConfig,
    /// A file that gets every frame, in and out, in pcap format. An old one is overwritten.
    pub pcap: Option<PathBuf>,
    /// The Ethernet address; QEMU's own choice, 52:54:00:12:34:56 and counting, without.
    pub mac: Option<MacAddress>,
}

impl VmNic {
    /// `model` on the `user` wire, without a pcap.
    pub fn new(model: Model) -> Self {
        Self { model, virtio: VirtioOptions::default(), wire: WireConfig::default(), pcap: None, mac: None }
    }
}

/// A guest and what it is for.
#[derive(Debug)]
pub struct VmConfig {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// At 0000:00:02.0, 0000:00:03.0 and so on.
    pub nics: Vec<VmNic>,
    /// The kernel; Debian's unless set.
    pub kernel: Kernel,
    /// Whether there is an IOMMU; true unless set. Without one the NICs are left without a driver.
    pub iommu: bool,
    /// Whose the NICs are.
    pub driver: NicDriver,
    /// Features of the processor, in QEMU's words, behind `max`: `-erms,-fsrm`; none unless set.
    pub cpu: Option<String>,
    /// The NICs are behind one conventional PCI bridge, at 0000:01:02.0 and so on: the IOMMU cannot tell them apart, so they are one group.
    pub bridge: bool,
    /// The guest's clock counts instructions: time differences in it are instruction counts, the same on every run.
    pub icount: bool,
    /// The guest's memory, in MiB; 512 unless set.
    pub memory_mib: u32,
    /// Files, and directories with all that is in them, that the guest has under the same absolute path; of programs also the libraries.
    pub shares: Vec<PathBuf>,
    /// The command's environment, beside HOME, [`PATH`] and this process's LD_LIBRARY_PATH.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory, here and in the guest; this process's unless set. It is not shared.
    pub directory: Option<PathBuf>,
    /// How long everything may take; 120 s unless set. The boot may take 120 s at most in any case.
    pub timeout: Duration,
}

impl VmConfig {
    /// `command` on a guest without NICs.
    pub fn new(command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            nics: Vec::new(),
            kernel: Kernel::default(),
            iommu: true,
            driver: NicDriver::default(),
            cpu: None,
            bridge: false,
            icount: false,
            memory_mib: 512,
            shares: Vec::new(),
            environment: Vec::new(),
            directory: None,
            timeout: Duration::from_secs(120),
        }
    }
}

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmExit {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// The version of the guest's kernel, `6.1.0-56-cloud-amd64`; the name of the modules' directory for one's own.
    pub kernel: String,
    /// How long it took from the call to the command's start, preparations included.
    pub boot: Duration,
}

/// A command that could not be run in a guest, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program is missing here.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The kernel or busybox cannot be had.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The kernel's modules cannot be had.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The command's program cannot run in the guest.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file cannot be put into the guest.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The guest's disk cannot be made.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A wire cannot be had.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// There is nothing to run.
    #[error("no command for the guest: give a program and its arguments, or `sh`")]
    NoCommand,
    /// They do not fit on the bus.
    #[error("{0} NICs: a guest has at most {max}", max = command_line::MAX_NICS)]
    Nics(usize),
    /// A wire has one queue pair.
    #[error("{}", RigError::Queues(*.0))]
    Queues(u16),
    /// A capture file cannot be written.
    #[error("the capture file {path} cannot be created: {source}")]
    Pcap {
        /// the file
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// The system refused something that the guest needs.
    #[error("the guest cannot be started, failed to {what}: {source}")]
    Setup {
        /// what was wanted
        what: &'static str,
        /// what the system said
        source: io::Error,
    },
    /// QEMU refused to start.
    #[error("the guest did not start: {0}")]
    Start(String),
    /// The guest's own set-up failed.
    #[error("the guest cannot run the command: {message}. Its kernel's last words:\n{console}")]
    Guest {
        /// what the guest's first process said
        message: String,
        /// the kernel's console
        console: String,
    },
    /// The guest ended without an exit code: a panic, or the command powered it off.
    #[error("the guest ended before the command did: {how}. Its kernel's last words:\n{console}")]
    Ended {
        /// what became of QEMU
        how: String,
        /// the kernel's console
        console: String,
    },
    /// QEMU's list of features has another form.
    #[error("{0:?} are no features of a processor: give them as QEMU does, with + or - in front and commas between, as -erms,-fsrm")]
    Cpu(String),
    /// It took too long.
    #[error("the guest was ended after {seconds} s, {doing}: give it more time if it needs that. Its kernel's last words:\n{console}")]
    Timeout {
        /// the limit
        seconds: f32,
        /// what it was doing
        doing: &'static str,
        /// the kernel's console
        console: String,
    },
    /// `stop` was set.
    #[error("the guest was stopped")]
    Stopped,
    /// What the command wrote cannot be handed over.
    #[error("the command's output cannot be written: {0}")]
    Output(io::Error),
}

impl VmError {
    fn setup(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Setup { what, source }
    }
}

/// Boots a guest, runs the command in it, and ends it. What the command writes goes to `streams` while it runs. Setting `stop` ends the
/// guest at once, and QEMU with it.
///
/// # Errors
/// [`VmError`]. A command that ends with another code than 0 is none.
pub fn run(config: VmConfig, streams: &mut Streams<'_>, stop: &AtomicBool) -> Result<VmExit, VmError> {
    machine::run(config, streams, stop)
}
