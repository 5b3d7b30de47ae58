//! A running QEMU with its connections. It lives as long as the rig, a device, its registers or its DMA space.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hal::RegisterError;
use hal::progress::ProgressBoard;
use hal::registers::Width;
use hal::segment::Domain;

use super::command_line::{self, Netdev};
use super::dimm::Dimms;
use super::nic::{Model, queue_pairs};
use super::pci::Function;
use super::process::Process;
use super::qmp::{Qmp, QmpError};
use super::qtest::{Place, Qtest, QtestError};
use super::timeout::{self, poll_until, wait_readable};
use super::{RigConfig, RigError};
use crate::install;
use crate::wire::{Bridge, Gate, HostWire, Relay, WireConfig, WireError, interface_exists, is_interface_name};

/// How long a QEMU that has closed a socket may take to end.
const DYING: Duration = Duration::from_secs(2);

/// A port that nothing answers at; reading it changes nothing (POST codes are written there).
const IDLE_PORT: Place = Place::Port(0x80);

/// The machine. Fields are dropped in this order: QEMU ends before what it is connected to.
pub(crate) struct Machine {
    pub(crate) model: Model,
    /// The device interrupts by MSI-X.
    pub(crate) msix: bool,
    pub(crate) address: String,
    pub(crate) function: Function,
    pub(crate) domain: Domain,
    pub(crate) queues: ProgressBoard,
    pub(crate) dimms: Mutex<Dimms>,
    /// Somebody has the device open.
    pub(crate) open: AtomicBool,
    qtest: Mutex<Qtest>,
    qmp: Mutex<Qmp>,
    process: Process,
    gate: Option<Gate>,
    _relay: Option<Relay>,
    _bridge: Option<Bridge>,
}

impl Machine {
    pub(crate) fn start(config: RigConfig) -> Result<Self, RigError> {
        let RigConfig { model, virtio, msix, wire, pcap, mac, wire_timeout } = config;
        let queues = queue_pairs(model, &virtio, &wire).map_err(RigError::Queues)?;
        let setpriv = install::tool("setpriv", "util-linux")?;
        let qemu = install::tool(super::QEMU, super::QEMU_PACKAGE)?;
        if let Some(path) = &pcap {
            fs::File::create(path).map_err(|source| RigError::Pcap { path: path.clone(), source })?;
        }

        // Gone as soon as QEMU has connected, so that whatever ends this process later leaves nothing behind.
        let directory = tempfile::Builder::new().prefix("pagewire-rig-").tempdir().map_err(setup("make a temporary directory"))?;
        let path = |name: &str| directory.path().join(name);
        let (bios, qtest, qmp) = (path("bios"), path("qtest"), path("qmp"));
        fs::write(&bios, command_line::bios()).map_err(setup("write the BIOS"))?;
        let qtest_listener = listen(&qtest)?;
        let qmp_listener = listen(&qmp)?;

        let (netdev, end, bridge) = match wire {
            WireConfig::Host(HostWire::User { forwards }) => (Netdev::User(forwards), None, None),
            WireConfig::Host(HostWire::Tap { name }) => {
                if !is_interface_name(&name) {
                    return Err(WireError::TapName(name).into());
                }
                if !interface_exists(&name).map_err(WireError::Setup)? {
                    return Err(WireError::NoTap(name).into());
                }
                (Netdev::Tap(name, queues), None, None)
            }
            WireConfig::Local(end) => (Netdev::Stream(path("wire")), Some(end), None),
            WireConfig::Host(HostWire::Dgram { local, remote }) => {
                let (bridge, end) = Bridge::start(&local, &remote)?;
                (Netdev::Stream(path("wire")), Some(end), Some(bridge))
            }
        };
        let stream_listener = match &netdev {
            Netdev::Stream(path) => Some(listen(path)?),
            _ => None,
        };
        let (bios, qtest, qmp, pcap) = (&bios, &qtest, &qmp, pcap.as_deref());
        let virtio = &virtio;
        let options = command_line::Machine { qemu: &qemu, setpriv: &setpriv, bios, qtest, qmp, netdev: &netdev, model, virtio, mac, pcap };
        let command = options.command();

        tracing::debug!(?command, "starting QEMU");
        let process = Process::start(command).map_err(setup("start QEMU"))?;
        let birth = Birth { process: &process, netdev: &netdev };
        let qtest = birth.accept(&qtest_listener, "its qtest socket")?;
        let qmp = birth.accept(&qmp_listener, "its QMP socket")?;
        let stream = stream_listener.map(|listener| birth.accept(&listener, "its wire")).transpose()?;

        let mut qmp = Qmp::new(qmp).map_err(|error| birth.failed(&error))?;
        if stream.is_some() {
            qmp.wait_stream_connected().map_err(|error| birth.failed(&error))?;
        }
        let mut qtest = Qtest::new(qtest).map_err(setup("prepare the qtest socket"))?;
        let function = qtest
            .intercept_interrupts()
            .and_then(|()| Function::set_up(&mut qtest))
            .map_err(|error| birth.failed(&error))?
            .ok_or_else(|| RigError::Protocol("the NIC is not on its bus".to_owned()))?;

        // QEMU answers only when its machine is complete, so it has read the BIOS.
        drop(directory);

        let relay = match (stream, end) {
            (Some(stream), Some(end)) => Some(Relay::start(stream, end).map_err(setup("start the wire"))?),
            _ => None,
        };
        let delivery = bridge.as_ref().map(Bridge::delivery);
        let gate = relay.as_ref().map(|relay| Gate::new(relay, delivery, wire_timeout)).transpose().map_err(setup("start the wire"))?;
        tracing::debug!(pid = process.pid(), device = %function.identity, "QEMU is up");
        Ok(Self {
            model,
            msix,
            address: format!("sim:{model}"),
            function,
            domain: Domain::new(),
            queues: ProgressBoard::new(),
            dimms: Mutex::default(),
            open: AtomicBool::new(false),
            qtest: Mutex::new(qtest),
            qmp: Mutex::new(qmp),
            process,
            gate,
            _relay: relay,
            _bridge: bridge,
        })
    }

    /// QEMU's process number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Uses the qtest connection, alone.
    pub(crate) fn with_qtest<T>(&self, work: impl FnOnce(&mut Qtest) -> Result<T, QtestError>) -> Result<T, RegisterError> {
        work(&mut lock(&self.qtest)).map_err(|error| self.unreachable(&error, matches!(error, QtestError::Closed(_))))
    }

    /// Uses the QMP connection, alone.
    pub(crate) fn with_qmp<T>(&self, work: impl FnOnce(&mut Qmp) -> Result<T, QmpError>) -> Result<T, RegisterError> {
        work(&mut lock(&self.qmp)).map_err(|error| self.unreachable(&error, matches!(error, QmpError::Closed(_))))
    }

    /// Reads a device register.
    pub(crate) fn read(&self, place: Place, width: Width) -> Result<u64, RegisterError> {
        self.with_qtest(|qtest| qtest.read(place, width))
    }

    /// Writes a device register, which may be a doorbell: waits until the wire has room for what it may send.
    pub(crate) fn write(&self, place: Place, width: Width, value: u64) -> Result<(), RegisterError> {
        let _open = self.gate.as_ref().map(|gate| gate.pass(|| self.idle_access())).transpose()?;
        self.with_qtest(|qtest| qtest.write(place, width, value))
    }

    /// Waits until the other end of the wire has what the device has sent.
    pub(crate) fn drain(&self) -> Result<(), RegisterError> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.drain(|| self.idle_access()))
    }

    pub(crate) fn dimms(&self) -> MutexGuard<'_, Dimms> {
        lock(&self.dimms)
    }

    /// Reads something that changes nothing: whether QEMU is still there.
    pub(crate) fn idle_access(&self) -> Result<(), RegisterError> {
        self.read(IDLE_PORT, Width::Byte).map(drop)
    }

    /// An error of a connection, told by how QEMU ended if it did.
    fn unreachable(&self, error: &dyn std::error::Error, closed: bool) -> RegisterError {
        let obituary = self.process.obituary(if closed { DYING } else { Duration::ZERO });
        RegisterError::Unreachable(obituary.unwrap_or_else(|| error.to_string()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A program that has seen its last completion may leave; what it sent is still on its way through QEMU's queue. After a panic
        // nobody asks for it.
        if !std::thread::panicking()
            && self.process.obituary(Duration::ZERO).is_none()
            && let Err(error) = self.drain()
        {
            tracing::warn!("frames were lost at the end of the rig: {error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn setup(what: &'static str) -> impl Fn(io::Error) -> RigError {
    move |source| RigError::Setup { what, source }
}

fn listen(path: &Path) -> Result<UnixListener, RigError> {
    let listener = UnixListener::bind(path).map_err(setup("make a socket in the temporary directory (a shorter TMPDIR may help)"))?;
    listener.set_nonblocking(true).map_err(setup("prepare a socket"))?;
    Ok(listener)
}

/// A QEMU that starts, and may end instead at any step.
struct Birth<'m> {
    process: &'m Process,
    netdev: &'m Netdev,
}

impl Birth<'_> {
    fn accept(&self, listener: &UnixListener, what: &str) -> Result<UnixStream, RigError> {
        let deadline = Instant::now() + timeout::QEMU;
        let answer = poll_until(deadline, || match listener.accept() {
            Ok((stream, _)) => Some(Ok(stream)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                let ended = self.ended(Duration::ZERO);
                if ended.is_none() {
                    wait_readable(&[listener.as_fd()], deadline.min(Instant::now() + Duration::from_millis(20)));
                }
                ended.map(Err)
            }
            Err(source) => Some(Err(setup("accept QEMU's connection")(source))),
        });
        let stream = answer.unwrap_or_else(|| Err(RigError::Protocol(format!("QEMU has not connected {what}"))))?;
        stream.set_nonblocking(false).map_err(setup("prepare a socket"))?;
        Ok(stream)
    }

    /// An error of a connection: how QEMU ended is the better reason.
    fn failed(&self, error: &dyn std::error::Error) -> RigError {
        self.ended(DYING).unwrap_or_else(|| RigError::Protocol(error.to_string()))
    }

    fn ended(&self, patience: Duration) -> Option<RigError> {
        self.process.obituary(patience).map(|reason| RigError::Start(reason + &self.netdev.remedy()))
    }
}
