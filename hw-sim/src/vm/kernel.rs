//! The guest's kernel: Debian's for clouds, out of the cache or downloaded, or the user's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::backports;
use super::package::{Apt, PackageError, cache, lock, only, unusable};

/// The package that depends on the newest cloud kernel of a suite.
const META: &str = "linux-image-cloud-amd64";
const WHAT: &str = "the guest's kernel";
const REMEDY: &str = "give one of your own: --kernel FILE --modules DIRECTORY";

/// Which kernel the guest boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The cloud kernel of the running Debian (6.1 on Debian 12). Downloaded once, and used as long as it is in the cache,
    /// `$XDG_CACHE_HOME/pagewire/kernels`.
    #[default]
    Debian,
    /// The cloud kernel of the running Debian's backports (6.12 on Debian 12), likewise. apt's own sources need not have that suite.
    Backports,
    /// The user's own.
    Files {
        /// The kernel: a bzImage.
        kernel: PathBuf,
        /// The directory that has its modules, at any depth: `/lib/modules/VERSION`.
        modules: PathBuf,
    },
}

/// A kernel on this machine.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel, or downloads it.
    pub(crate) fn files(&self) -> Result<Files, PackageError> {
        match self {
            Self::Debian => packaged("debian"),
            Self::Backports => packaged("backports"),
            Self::Files { kernel, modules } => Ok(Files { image: kernel.clone(), modules: modules.clone() }),
        }
    }
}

/// The kernel that the link `kind` of the cache leads to; made when it is missing.
fn packaged(kind: &str) -> Result<Files, PackageError> {
    let kernels = cache("kernels", WHAT)?;
    let link = kernels.join(kind);
    if !link.exists() {
        let _lock = lock(&kernels)?;
        if !link.exists() {
            fetch(kind, &kernels, &link)?;
        }
    }
    let incomplete = |file| PackageError::Incomplete { package: META.to_owned(), path: link.clone(), file };
    let look = |place: &str, prefix: &str| only(&link.join(place), |name| name.starts_with(prefix)).ok().flatten();
    let image = look("boot", "vmlinuz-").ok_or_else(|| incomplete("kernel"))?;
    let modules = look("lib/modules", "").or_else(|| look("usr/lib/modules", "")).ok_or_else(|| incomplete("modules"))?;
    Ok(Files { image, modules })
}

fn fetch(kind: &str, kernels: &Path, link: &Path) -> Result<(), PackageError> {
    let mut apt = Apt { what: WHAT, remedy: REMEDY, options: Vec::new() };
    if kind == "backports" {
        let lists = cache("backports", WHAT)?;
        apt = backports::apt(&apt, META, &lists)?;
    }
    let package = apt.behind(META, "linux-image-")?;
    let version = package.trim_start_matches("linux-image-");
    let target = kernels.join(version);
    if !target.exists() {
        tracing::warn!("downloading the kernel {version} with apt-get into {}, once", kernels.display());
        apt.unpack(&package, &target)?;
    }
    // A link that leads nowhere is replaced.
    let _ = fs::remove_file(link);
    symlink(version, link).map_err(unusable(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_own_kernel_is_taken_as_it_is() {
        let kernel = Kernel::Files { kernel: "/k".into(), modules: "/m".into() };
        let files = kernel.files().unwrap();
        assert_eq!((files.image, files.modules), (PathBuf::from("/k"), PathBuf::from("/m")));
    }
}
