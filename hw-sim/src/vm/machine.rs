//! A guest from its parts to its end.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::busybox::Busybox;
use super::command_line::{self, MAX_NICS, Machine, QMP, SERIAL_PORTS, STDIN};
use super::console::{Limits, Ports, Streams, talk};
use super::disk::{self, Unnamed};
use super::initramfs::Contents;
use super::sockets::Sockets;
use super::tree::Tree;
use super::wires::Plugs;
use super::{NicDriver, VmConfig, VmError, VmExit, modules, program, script};
use crate::install;
use crate::rig;
use crate::rig::process::Process;
use crate::rig::qmp::Qmp;

/// How long a boot may take: a few seconds, unless this host has other things to do.
const BOOT: Duration = Duration::from_secs(120);
/// How long a QEMU that has closed its sockets may take to end.
const DYING: Duration = Duration::from_secs(2);

/// The directories that every guest has.
const DIRECTORIES: [&str; 10] = ["/bin", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/usr/bin", "/var/tmp"];

pub(crate) fn run(config: VmConfig, streams: &mut Streams<'_>, stop: &AtomicBool) -> Result<VmExit, VmError> {
    let start = Instant::now();
    if config.nics.len() > MAX_NICS {
        return Err(VmError::Nics(config.nics.len()));
    }
    if let Some(cpu) = config.cpu.as_ref().filter(|cpu| !command_line::are_features(cpu)) {
        return Err(VmError::Cpu(cpu.clone()));
    }
    let setpriv = install::tool("setpriv", "util-linux")?;
    let qemu = install::tool(rig::QEMU, rig::QEMU_PACKAGE)?;
    let kernel = config.kernel.files()?;
    let busybox = Busybox::find()?;
    let stdin = streams.stdin.is_some();

    // Without an IOMMU vfio-pci does not take them.
    let bound = if config.iommu && config.driver == NicDriver::Vfio { config.nics.len() } else { 0 };
    let network: &[&str] = if config.driver == NicDriver::Kernel { &modules::NETWORK } else { &[] };
    let virtio: Vec<&str> = modules::VIRTIO.iter().chain(network).copied().collect();
    let addresses: Vec<String> = (0..bound).map(|index| command_line::address(index, config.bridge)).collect();
    let initramfs = Unnamed::new()?;
    Contents {
        busybox: &busybox.path,
        vfio: &modules::find(&kernel.modules, &modules::VFIO, &busybox.path)?,
        virtio: &modules::find(&kernel.modules, &virtio, &busybox.path)?,
        nics: &addresses,
        stdin,
    }
    .write(initramfs.file())
    .map_err(VmError::setup("write the initramfs"))?;

    let mut sockets = Sockets::new()?;
    let disk = {
        let root = sockets.directory().join("root");
        std::fs::create_dir(&root).map_err(VmError::setup("make a temporary directory"))?;
        let mut tree = Tree::new(root);
        furnish(&mut tree, &config, &busybox)?;
        let image = disk::image(&tree)?;
        let _ = std::fs::remove_dir_all(tree.root());
        image
    };

    for (name, _) in SERIAL_PORTS {
        sockets.listen(name)?;
    }
    sockets.listen(QMP)?;
    if stdin {
        sockets.listen(STDIN)?;
    }
    let (plugs, nics) = Plugs::new(config.nics, &mut sockets)?;
    let (initramfs_path, disk_path) = (initramfs.path(), disk.path());
    let command = Machine {
        qemu: &qemu,
        setpriv: &setpriv,
        kernel: &kernel.image,
        initramfs: &initramfs_path,
        disk: &disk_path,
        sockets: sockets.directory(),
        memory_mib: config.memory_mib,
        icount: config.icount,
        stdin,
        iommu: config.iommu,
        cpu: config.cpu.as_deref(),
        bridge: config.bridge,
        nics: &nics,
    }
    .command();
    tracing::debug!(?command, prepared = ?start.elapsed(), "starting QEMU");
    let process = Process::start(command).map_err(VmError::setup("start QEMU"))?;
    let remedy = |error| match error {
        VmError::Start(reason) => VmError::Start(reason + &nics.iter().map(|nic| nic.netdev.remedy()).collect::<String>()),
        error => error,
    };
    let port = |name: &str| sockets.accept(name, &process).map_err(remedy);
    let qmp = port(QMP)?;
    let ports = Ports {
        console: port("console")?,
        stdout: port("stdout")?,
        stderr: port("stderr")?,
        control: port("control")?,
        stdin: if stdin { Some(port(STDIN)?) } else { None },
    };
    let wires = plugs.connect(&sockets, &process).map_err(remedy)?;
    let qmp = Qmp::new(qmp).map_err(|error| VmError::Start(process.obituary(DYING).unwrap_or_else(|| error.to_string())))?;
    drop(sockets);

    let limits = Limits { start, boot: BOOT, total: config.timeout, stop };
    let finish = talk(ports, streams, &limits).map_err(|error| match error {
        VmError::Ended { how, console } if how.is_empty() => {
            let how = process.obituary(DYING).unwrap_or_else(|| "QEMU has closed its ports".to_owned());
            VmError::Ended { how, console }
        }
        error => error,
    })?;
    wires.drain(qmp);
    let version = kernel.modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(VmExit { code: finish.code, kernel: version, boot: finish.ready.duration_since(start) })
}

/// Puts everything that the command needs into the guest's root.
fn furnish(tree: &mut Tree, config: &VmConfig, busybox: &Busybox) -> Result<(), VmError> {
    let Some((name, arguments)) = config.command.split_first() else { return Err(VmError::NoCommand) };
    let directory = match &config.directory {
        Some(directory) => std::path::absolute(directory),
        None => env::current_dir(),
    }
    .map_err(VmError::setup("find the working directory"))?;
    for path in DIRECTORIES {
        tree.directory(Path::new(path))?;
    }
    if !tree.reserved(&directory) {
        tree.directory(&directory)?;
    }
    let own = Path::new("/bin/busybox");
    tree.copy(&busybox.path, own)?;
    for applet in busybox.applets.iter().filter(|applet| *applet != "busybox") {
        tree.link(&Path::new("/bin").join(applet), own)?;
    }

    let mut command = config.command.clone();
    if !name.to_str().is_some_and(|name| busybox.applets.iter().any(|applet| applet == name)) {
        let program = program::locate(name, &directory)?;
        command[0] = program.clone().into();
        share_with_needs(tree, &program)?;
    }
    for path in script::paths(arguments, &directory) {
        // What is no file is no path, or a directory, of which only the name may be meant: `--share` says so.
        if path.is_file() && !tree.reserved(&path) {
            share_with_needs(tree, &path)?;
        } else if path.is_dir() && !tree.reserved(&path) {
            tree.directory(&path)?;
        }
    }
    for path in &config.shares {
        let path = directory.join(path);
        if path.is_dir() { tree.share(&path)? } else { share_with_needs(tree, &path)? }
    }

    let mut environment = config.environment.clone();
    // ldd has looked there, too.
    let libraries = OsStr::new("LD_LIBRARY_PATH");
    if let Some(value) = env::var_os(libraries)
        && !environment.iter().any(|(name, _)| name == libraries)
    {
        environment.push((libraries.to_owned(), value));
    }
    tree.write(Path::new("/command"), &script::script(&command, &environment, &directory))?;
    Ok(())
}

/// A file, and the libraries it is linked to if it is a program.
fn share_with_needs(tree: &mut Tree, path: &Path) -> Result<(), VmError> {
    tree.share(path)?;
    for needed in program::needs(path)? {
        tree.share(&needed)?;
    }
    Ok(())
}
