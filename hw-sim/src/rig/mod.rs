//! The rig: one NIC model of QEMU, driven from this process, with no guest.
//!
//! QEMU's processor halts in its first instruction, and only the devices live. Registers are reached by messages on QEMU's qtest socket;
//! memory and files become the machine's memory by hot-plug, so rings are truly shared and a file's page-cache pages are what the device
//! reads. A register access costs some 20 to 70 µs, so the rig shows that a driver is right and how often it rings, not how fast it is.
//!
//! ```no_run
//! use pagewire_hw_sim::rig::{Model, Rig, RigConfig};
//! use pagewire_hw_sim::wire::{self, WireConfig};
//!
//! let (end, wire) = wire::local();
//! let rig = Rig::start(RigConfig { wire: WireConfig::Local(end), ..RigConfig::new(Model::E1000) })?;
//! let mut device = rig.device()?;
//! device.set_bus_master(true)?;
//! let registers = device.bar(0)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not like silicon
//! The Intel models transmit inside the write to their tail register. A file that is truncated while it is mapped kills QEMU (SIGBUS).
//!
//! # Lifetime
//! QEMU ends when the rig, the device and everything that was had from it are dropped, and when this process ends, however it does.
//!
//! # Messages
//! A program that is missing is [installed](crate::install) once. That, and frames lost at the end, are told by `tracing::warn!`: a test
//! shows them with `tracing_subscriber::fmt().with_test_writer().init()`.

pub(crate) mod command_line;
mod device;
mod dimm;
mod interrupt;
mod machine;
mod msix;
pub(crate) mod nic;
mod pci;
pub(crate) mod process;
pub(crate) mod qmp;
mod qtest;
pub(crate) mod timeout;
mod virtio;

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hal::{BusDevice, MacAddress, RegisterError};

pub use self::nic::{Model, ParseModelError};
pub use self::virtio::{VirtioOptionError, VirtioOptions};
use crate::install::{self, InstallError};
use crate::wire::{WireConfig, WireError};

pub(crate) use self::process::last_lines;

/// The program, and the Debian package that has it.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
pub(crate) const QEMU_PACKAGE: &str = "qemu-system-x86";

/// How a [`Rig`] is set up.
#[derive(Debug)]
pub struct RigConfig {
    /// The NIC.
    pub model: Model,
    /// What it offers, if it is a virtio device.
    pub virtio: VirtioOptions,
    /// It interrupts by MSI-X, not INTx. Not every model can.
    pub msix: bool,
    /// What it is plugged into.
    pub wire: WireConfig,
    /// A file that gets every frame, in and out, in pcap format. An old one is overwritten.
    pub pcap: Option<PathBuf>,
    /// The NIC's Ethernet address; QEMU's own choice, 52:54:00:12:34:56, without.
    pub mac: Option<MacAddress>,
    /// How long a doorbell waits for a `Dgram` or `Local` wire whose other end does not read, before it fails. 10 s unless set.
    pub wire_timeout: Duration,
}

impl RigConfig {
    /// `model` on the `user` wire, without a pcap.
    pub fn new(model: Model) -> Self {
        Self {
            model,
            virtio: VirtioOptions::default(),
            msix: false,
            wire: WireConfig::default(),
            pcap: None,
            mac: None,
            wire_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for RigConfig {
    /// An e1000, as [`new`](Self::new).
    fn default() -> Self {
        Self::new(Model::default())
    }
}

/// A rig that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A program is missing.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The wire cannot be had.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The capture file cannot be written.
    #[error("the capture file {path} cannot be created: {source}")]
    Pcap {
        /// the file
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// The system refused something that the rig needs.
    #[error("the rig cannot {what}: {source}")]
    Setup {
        /// what it wanted to do
        what: &'static str,
        /// what the system said
        source: io::Error,
    },
    /// QEMU refused to start.
    #[error("the rig did not start: {0}")]
    Start(String),
    /// QEMU did something unexpected, or nothing in time.
    #[error("the rig does not work: {0}")]
    Protocol(String),
    /// The wire has one queue pair.
    #[error("{0} queue pairs need a wire that has as many: a TAP interface with multi_queue (wire=tap:NAME)")]
    Queues(u16),
    /// The device is open already.
    #[error("the rig's device is open already: drop it before it is opened again")]
    Open,
}

/// A running QEMU with one NIC. Cheap to clone; every clone is the same machine.
#[derive(Clone)]
pub struct Rig(Arc<machine::Machine>);

impl Rig {
    /// Starts QEMU; takes some 100 ms.
    ///
    /// # Errors
    /// [`RigError`], with QEMU's own words where it refused.
    pub fn start(config: RigConfig) -> Result<Self, RigError> {
        machine::Machine::start(config).map(|machine| Self(Arc::new(machine)))
    }

    /// Opens the NIC, with its BARs placed and bus mastering off.
    ///
    /// # Errors
    /// [`RigError::Open`] while it is open.
    pub fn device(&self) -> Result<Box<dyn BusDevice>, RigError> {
        device::Device::open(&self.0).map(|device| Box::new(device) as Box<dyn BusDevice>).ok_or(RigError::Open)
    }

    /// Waits until the other end of a `Dgram` wire has everything that the device has sent, and a `Local` one can receive it. The end of
    /// the rig does this too, but can only log a failure.
    ///
    /// # Errors
    /// [`RegisterError::Unreachable`] when the other end has not read for the wire's time-out, or QEMU is gone.
    pub fn drain(&self) -> Result<(), RegisterError> {
        self.0.drain()
    }

    /// The model of the NIC.
    pub fn model(&self) -> Model {
        self.0.model
    }

    /// QEMU's process number.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// The version of the QEMU that a rig would use, `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`; `None` when there is none yet. Installs nothing.
pub fn qemu_version() -> Option<String> {
    let program = install::find(QEMU)?;
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next()?.strip_prefix("QEMU emulator version ").map(str::to_owned)
}
