//! `pagewire vm`: a command in a guest with an IOMMU and VFIO.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use hw_sim::vm::{self, Kernel, NicDriver, Streams, VmConfig, VmError, VmNic};
use pagewire::device::{BusAddress, DeviceAddress};
use pagewire::net::Size;

use super::{Cli, Failure, Outcome, stop_flag};

/// Run a command in a guest that has NICs behind an IOMMU, through the kernel's VFIO; no root, no KVM
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire vm -- nics
    pagewire receive udp://127.0.0.1:9000 -o copy.bin &
    pagewire vm -- send film.mkv --nic pci:0000:00:02.0 --to udp://10.0.2.2:9000 --ip 10.0.2.15/24
    pagewire vm --icount -- bench tx --nic pci:0000:00:02.0 --size 64 --seconds 1
    pagewire vm -- sh

COMMAND is a pagewire command or any other program; a shell has pagewire in its PATH. The first NIC is at 0000:00:02.0, the next at 03.0, and so on. The files that
COMMAND names and every --share are there under the same absolute path, as copies on ext4. Debian's cloud kernel is downloaded once.

The exit status is the command's.")]
pub struct Vm {
    /// A NIC for the guest: e1000 or virtio-net, with [,wire=user|dgram:LOCAL:REMOTE|tap:NAME][,hostfwd=...][,pcap=FILE][,mac=MAC] and
    /// what virtio-net offers (see `pagewire nics --help`); one e1000 without
    #[arg(long = "nic", value_name = "MODEL", value_parser = nic)]
    nics: Vec<DeviceAddress>,

    #[command(flatten)]
    kernel: KernelArgs,

    /// A file or directory that the guest has under the same path
    #[arg(long = "share", value_name = "PATH")]
    shares: Vec<PathBuf>,

    /// Without an IOMMU: the NICs are left without a driver
    #[arg(long)]
    no_iommu: bool,

    /// Put the NICs behind one PCI bridge, at 0000:01:02.0 and so on: they are one IOMMU group then
    #[arg(long)]
    bridge: bool,

    /// Who has the NICs: a driver in user space, or the guest's kernel, as eth0, eth1 and so on
    #[arg(long, value_enum, default_value_t)]
    driver: DriverArg,

    /// Features of the guest's processor, as `-erms,-fsrm`; QEMU emulates all that it can without
    #[arg(long, value_name = "FEATURES", allow_hyphen_values = true)]
    cpu: Option<String>,

    /// The guest's clock counts instructions: times in it are instruction counts, the same on every run
    #[arg(long)]
    icount: bool,

    /// The guest's memory
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    memory: Size,

    /// How long it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Which kernel a guest boots.
#[derive(Args)]
pub struct KernelArgs {
    /// Another kernel: `backports` (the suite's newest), or a bzImage with --modules
    #[arg(long)]
    kernel: Option<PathBuf>,

    /// The modules of --kernel: /lib/modules/VERSION
    #[arg(long, value_name = "DIRECTORY", requires = "kernel")]
    modules: Option<PathBuf>,
}

impl KernelArgs {
    pub fn kernel(&self) -> Result<Kernel, Failure> {
        Ok(match (&self.kernel, &self.modules) {
            (None, _) => Kernel::Debian,
            (Some(kernel), None) if kernel.as_os_str() == "backports" => Kernel::Backports,
            (Some(kernel), Some(modules)) => Kernel::Files { kernel: kernel.clone(), modules: modules.clone() },
            (Some(_), None) => return Err("--kernel FILE needs --modules DIRECTORY (or say --kernel backports)".into()),
        })
    }
}

/// `--driver`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum DriverArg {
    /// vfio-pci, for a driver in user space
    #[default]
    Vfio,
    /// The kernel's own; Debian's cloud kernels have one for virtio-net alone
    Kernel,
}

fn nic(text: &str) -> Result<DeviceAddress, String> {
    let text = if text.starts_with("sim:") { text.to_owned() } else { format!("sim:{text}") };
    text.parse().map_err(|error: pagewire::device::ParseDeviceError| error.to_string())
}

impl Vm {
    pub fn run(self) -> Result<Outcome, Failure> {
        let stop = stop_flag()?;
        let (mut command, mut shares, mut environment) = (self.command, self.shares, Vec::new());
        let program = std::env::current_exe()?;
        let own = command.first().and_then(|word| word.to_str()).is_some_and(|word| Cli::command().find_subcommand(word).is_some());
        if own {
            command.insert(0, program.into_os_string());
        } else {
            // A shell finds it by its name.
            let mut path = OsString::from(vm::PATH);
            if let Some(directory) = program.parent() {
                path.push(":");
                path.push(directory);
            }
            environment.push(("PATH".into(), path));
            shares.push(program);
        }
        let kernel = self.kernel.kernel()?;
        let mut nics: Vec<VmNic> = self.nics.into_iter().filter_map(guest_nic).collect();
        if nics.is_empty() {
            nics.push(VmNic::new(hw_sim::rig::Model::E1000));
        }
        let config = VmConfig {
            nics,
            kernel,
            iommu: !self.no_iommu,
            driver: match self.driver {
                DriverArg::Vfio => NicDriver::Vfio,
                DriverArg::Kernel => NicDriver::Kernel,
            },
            cpu: self.cpu,
            bridge: self.bridge,
            icount: self.icount,
            memory_mib: u32::try_from(self.memory.bytes() >> 20).map_err(|_| "--memory: more than any guest takes")?,
            shares,
            environment,
            timeout: Duration::from_secs(self.timeout),
            ..VmConfig::new(command)
        };
        let (stdin, mut stdout, mut stderr) = (io::stdin(), io::stdout(), io::stderr());
        // A terminal only for a shell: other commands would eat what is typed ahead.
        let wanted = !stdin.is_terminal() || config.command.first().is_some_and(|program| program == "sh");
        let mut streams = Streams { stdin: wanted.then(|| stdin.as_fd()), stdout: &mut stdout, stderr: &mut stderr };
        match vm::run(config, &mut streams, &stop) {
            Ok(exit) => Ok(Outcome::Code(exit.code.clamp(0, 255) as u8)),
            Err(VmError::Stopped) => Ok(Outcome::Interrupted),
            Err(error) => Err(error.into()),
        }
    }
}

fn guest_nic(address: DeviceAddress) -> Option<VmNic> {
    match address.bus {
        BusAddress::Simulated(simulated) => {
            let rig = simulated.rig();
            Some(VmNic { model: rig.model, virtio: rig.virtio, wire: rig.wire, pcap: rig.pcap, mac: rig.mac })
        }
        BusAddress::Pci(_) | BusAddress::VhostUser(_) => None,
    }
}
