//! The guest's kernel modules: found by name, decompressed, in the order in which they are loaded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// VFIO for PCI devices with the type 1 IOMMU back end, each after what it needs. Up to 6.1 vfio_virqfd is a module of its own.
pub(crate) const VFIO: [&str; 6] = ["irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"];
/// The disk and the port for standard input.
pub(crate) const VIRTIO: [&str; 7] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio_console"];
/// The kernel's own drivers of the NICs, each after what it needs.
pub(crate) const NETWORK: [&str; 5] = ["failover", "net_failover", "virtio_net", "e1000", "e1000e"];

/// The endings of modules' files, and the program that decompresses them.
const ENDINGS: [(&str, &str); 4] = [(".ko", ""), (".ko.xz", "xz"), (".ko.gz", "gzip"), (".ko.zst", "zstd")];

/// Modules that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The directory cannot be read.
    #[error(
        "the modules in {path} cannot be read: {source}; --modules takes the directory of the kernel's version, as /lib/modules/VERSION"
    )]
    Unreadable {
        /// the directory or file
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// A module's compression is unknown, or its program is missing.
    #[error("the module {path} cannot be decompressed by `{program} -dc`: {reason}; decompress it with your own tools, in place")]
    Compressed {
        /// the file
        path: PathBuf,
        /// the program
        program: String,
        /// what it said
        reason: String,
    },
}

/// A module, ready to be loaded.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Those of `names` that are below `directory`, in the order of `names`. What is missing is built into the kernel, or the guest will say
/// what does not work without it.
pub(crate) fn find(directory: &Path, names: &[&'static str], busybox: &Path) -> Result<Vec<Module>, ModuleError> {
    let mut files = Vec::new();
    walk(directory, &mut files)?;
    let mut modules = Vec::new();
    for &name in names {
        let found = files.iter().find_map(|path| {
            let rest = path.file_name()?.to_str()?.strip_prefix(name)?;
            ENDINGS.iter().find(|(ending, _)| *ending == rest).map(|&(_, program)| (path, program))
        });
        if let Some((path, program)) = found {
            modules.push(Module { name, bytes: read(path, program, busybox)? });
        }
    }
    Ok(modules)
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> ModuleError {
    move |source| ModuleError::Unreadable { path: path.to_owned(), source }
}

/// Every file below `directory`. Links are not followed: `build` leads to the kernel's source.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), ModuleError> {
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let entry = entry.map_err(unreadable(directory))?;
        match entry.file_type().map_err(unreadable(&entry.path()))? {
            kind if kind.is_dir() => walk(&entry.path(), files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path, program: &str, busybox: &Path) -> Result<Vec<u8>, ModuleError> {
    let mut command = match program {
        "" => return fs::read(path).map_err(unreadable(path)),
        // busybox is there anyway, but has no zstd.
        "zstd" => Command::new(program),
        _ => {
            let mut command = Command::new(busybox);
            command.arg(program);
            command
        }
    };
    let failed = |reason: String| ModuleError::Compressed { path: path.to_owned(), program: program.to_owned(), reason };
    let output = command.arg("-dc").arg(path).stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_in_the_order_of_loading_and_only_by_their_whole_name() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("kernel/drivers");
        fs::create_dir_all(&deep).unwrap();
        for name in ["vfio.ko", "vfio-pci.ko", "vfio-pci-core.ko", "vfio.ko.txt"] {
            fs::write(deep.join(name), name).unwrap();
        }
        let found = find(directory.path(), &VFIO, Path::new("/none")).unwrap();
        let names: Vec<_> = found.iter().map(|module| (module.name, module.bytes.as_slice())).collect();
        let expected: [(&str, &[u8]); 3] = [("vfio", b"vfio.ko"), ("vfio-pci-core", b"vfio-pci-core.ko"), ("vfio-pci", b"vfio-pci.ko")];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let error = find(Path::new("/no/such/modules"), &VFIO, Path::new("/none")).map(drop).unwrap_err().to_string();
        assert!(error.contains("/no/such/modules") && error.contains("--modules"), "{error}");
    }
}
