//! `pagewire compare`: the kernel's ways to send a file and this program's, in guests, counted in instructions.

mod chart;
mod guest;
mod measured;
mod meter;
mod report;
mod sink;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hw_sim::rig::Model;
use hw_sim::vm::{self, NicDriver, Streams, VmConfig, VmError, VmNic};
use hw_sim::wire::HostWire;
use pagewire::net::Size;

pub use self::guest::CompareGuest;
use self::guest::{OURS, kernel_ways};
use self::measured::{Driver, Measured, content};
use self::report::{Comparison, Row};
use self::sink::{Expected, Sink};
use super::vm::KernelArgs;
use super::{Failure, Outcome, print, print_json, stop_flag};

/// Compare the kernel's ways to send a file with pagewire's: instructions, system calls, copies
#[derive(Args)]
#[command(after_help = "\
Examples:
    sudo pagewire compare --svg compare.svg
    pagewire compare --size 16MiB --json
    sudo pagewire compare --cpu=-erms,-fsrm
    sudo pagewire compare --nic e1000 --kernel /boot/vmlinuz-VERSION --modules /lib/modules/VERSION

Two guests are booted with the same NIC on the same wire, one with the kernel's driver and one with pagewire's; their clocks count
instructions. Each way sends the same file from the guest's memory to a socket of this host, which compares hashes. As root the wire is
a TAP interface in a network namespace of its own, with checksums and segmentation by the NIC; else, or with --wire user, QEMU's user
network, without.
Debian's cloud kernel has no driver for e1000: its ways need another kernel then.")]
pub struct Compare {
    /// How much each pass sends
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    size: Size,

    /// How many passes are measured, after one that is not
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,

    /// The NIC's model
    #[arg(long, value_enum, default_value_t)]
    nic: NicArg,

    /// Datagrams of 1472 bytes instead of TCP
    #[arg(long)]
    udp: bool,

    /// The wire
    #[arg(long, value_enum, default_value_t)]
    wire: WireArg,

    /// Features of the guests' processor, as `-erms,-fsrm`: how the emulator counts the copying of strings
    #[arg(long, value_name = "FEATURES", allow_hyphen_values = true)]
    cpu: Option<String>,

    /// The kernel's guest has no IOMMU, so that its driver has nothing to map
    #[arg(long)]
    no_iommu: bool,

    #[command(flatten)]
    kernel: KernelArgs,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,

    /// Draw the figures
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// The TAP interface, in the namespace that was made for it
    #[arg(long, value_name = "NAME", hide = true)]
    tap: Option<String>,
}

/// `--nic`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum NicArg {
    #[default]
    VirtioNet,
    E1000,
}

/// `--wire`.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum WireArg {
    /// `tap` as root, else `user`
    #[default]
    Auto,
    /// A TAP interface in a network namespace of its own
    Tap,
    /// QEMU's user network
    User,
}

/// The wire of both guests, and the addresses on it.
struct Network {
    wire: HostWire,
    /// Where the receiver listens, what the guest calls it, and the guest's own address.
    listen: IpAddr,
    receiver: IpAddr,
    own: &'static str,
}

const TAP: &str = "pw0";
/// Makes the network, then becomes the program with the arguments behind it.
const NAMESPACE: &str = "ip link set lo up && ip tuntap add dev pw0 mode tap && ip address add 10.9.0.1/24 dev pw0 && ip link set pw0 up \
                         && exec \"$@\"";
/// What a guest needs besides the file.
const GUEST_MEMORY: u64 = 448 << 20;
/// How long a guest may take.
const PATIENCE: Duration = Duration::from_secs(1800);

impl Compare {
    pub fn run(self) -> Result<Outcome, Failure> {
        if self.size.bytes() == 0 || self.size.bytes() > 1 << 30 {
            return Err("--size: the file lies in the guest's memory; use up to 1GiB".into());
        }
        let network = match (&self.tap, self.wire) {
            (Some(tap), _) => Network {
                wire: HostWire::Tap { name: tap.clone() },
                listen: [10, 9, 0, 1].into(),
                receiver: [10, 9, 0, 1].into(),
                own: "10.9.0.2/24",
            },
            (None, WireArg::Tap) => return in_namespace(),
            (None, WireArg::Auto) if rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists() => return in_namespace(),
            (None, _) => {
                Network { wire: HostWire::default(), listen: [127, 0, 0, 1].into(), receiver: [10, 0, 2, 2].into(), own: "10.0.2.15/24" }
            }
        };
        let stop = stop_flag()?;
        let mut comparison = Comparison {
            nic: self.model().name().to_owned(),
            wire: if self.tap.is_some() { "tap" } else { "user" }.to_owned(),
            protocol: if self.udp { "udp" } else { "tcp" }.to_owned(),
            bytes: self.size.bytes(),
            passes: self.passes,
            cpu: format!("max{}", self.cpu.as_ref().map(|cpu| format!(",{cpu}")).unwrap_or_default()),
            kernel: String::new(),
            kernel_iommu: !self.no_iommu,
            rows: Vec::new(),
        };
        let expected = Arc::new(Expected::new(content(self.size.bytes() as usize)));
        for driver in [Driver::Kernel, Driver::Pagewire] {
            match self.guest(driver, &network, &expected, &stop, &mut comparison) {
                Err(Interrupted::ByUser) => return Ok(Outcome::Interrupted),
                Err(Interrupted::By(failure)) => return Err(failure),
                Ok(()) => {}
            }
        }
        if let Some(path) = &self.svg {
            std::fs::write(path, chart::draw(&comparison)).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        if self.json {
            print_json(&comparison)?
        } else {
            print(&comparison.to_string())?
        }
        Ok(if comparison.rows.iter().all(Row::is_right) { Outcome::Done } else { Outcome::Failed })
    }

    fn model(&self) -> Model {
        match self.nic {
            NicArg::VirtioNet => Model::VirtioNet,
            NicArg::E1000 => Model::E1000,
        }
    }

    /// Runs one guest, and adds what it measured.
    fn guest(
        &self,
        driver: Driver,
        network: &Network,
        expected: &Arc<Expected>,
        stop: &AtomicBool,
        comparison: &mut Comparison,
    ) -> Result<(), Interrupted> {
        let count = if driver == Driver::Kernel { kernel_ways(self.udp).count() } else { OURS.len() };
        let make = if self.udp { Sink::udp } else { Sink::tcp };
        let sinks: Vec<Sink> = (0..count).map(|_| make(network.listen, expected)).collect::<io::Result<_>>()?;
        let ports: Vec<String> = sinks.iter().map(|sink| sink.port.to_string()).collect();
        let mut command: Vec<OsString> = vec![std::env::current_exe()?.into(), "compare-guest".into()];
        let word = driver.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        for (name, value) in [
            ("--driver", word),
            ("--receiver", network.receiver.to_string()),
            ("--ports", ports.join(",")),
            ("--ip", network.own.to_owned()),
            ("--size", self.size.bytes().to_string()),
            ("--passes", self.passes.to_string()),
        ] {
            command.extend([name.into(), value.into()]);
        }
        if self.udp {
            command.push("--udp".into());
        }
        if let Some(strace) = strace().filter(|_| driver == Driver::Pagewire) {
            command.extend(["--strace".into(), strace.into()]);
        }
        let config = VmConfig {
            nics: vec![VmNic { wire: network.wire.clone().into(), ..VmNic::new(self.model()) }],
            kernel: self.kernel.kernel()?,
            driver: if driver == Driver::Kernel { NicDriver::Kernel } else { NicDriver::Vfio },
            iommu: driver == Driver::Pagewire || !self.no_iommu,
            cpu: self.cpu.clone(),
            icount: true,
            memory_mib: ((GUEST_MEMORY + 2 * self.size.bytes()) >> 20) as u32,
            timeout: PATIENCE,
            ..VmConfig::new(command)
        };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let exit = match vm::run(config, &mut Streams { stdin: None, stdout: &mut output, stderr: &mut errors }, stop) {
            Err(VmError::Stopped) => return Err(Interrupted::ByUser),
            exit => exit?,
        };
        comparison.kernel = exit.kernel;
        if exit.code != 0 {
            let why = String::from_utf8_lossy(&errors).trim().trim_start_matches("pagewire: ").to_owned();
            if driver == Driver::Pagewire {
                return Err(Interrupted::By(why.into()));
            }
            // The kernel has no driver for this NIC: our own figures are worth something without.
            let rows = kernel_ways(self.udp).map(|way| Measured { failed: Some(why.clone()), ..Measured::new(way.name(), driver) });
            comparison.rows.extend(rows.map(|measured| Row::new(measured, &[], 0)));
            return Ok(());
        }
        for (line, sink) in String::from_utf8_lossy(&output).lines().zip(&sinks) {
            let measured: Measured = serde_json::from_str(line).map_err(|error| format!("the guest said {line:?}: {error}"))?;
            comparison.rows.push(Row::new(measured, &sink.received(), self.passes as usize + 1));
        }
        Ok(())
    }
}

/// Why there is no comparison.
enum Interrupted {
    ByUser,
    By(Failure),
}

impl<E: Into<Failure>> From<E> for Interrupted {
    fn from(error: E) -> Self {
        Self::By(error.into())
    }
}

/// strace, where it is installed.
fn strace() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join("strace")).find(|path| path.is_file())
}

/// The same command again, in a network of its own that ends with it.
fn in_namespace() -> Result<Outcome, Failure> {
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", NAMESPACE, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--tap", TAP])
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("no network namespace ({error}): install util-linux and iproute2, or say --wire user"))?;
    match status.code() {
        Some(0) => Ok(Outcome::Done),
        Some(130) => Ok(Outcome::Interrupted),
        // It has said itself what was wrong.
        code => Ok(Outcome::Code(code.map_or(1, |code| code.clamp(1, 255) as u8))),
    }
}
