//! busybox, the guest's own programs: this machine's if it is static, else the one of Debian's package, in the cache.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::package::{Apt, PackageError, cache, lock};
use super::program;
use crate::install;

const PACKAGE: &str = "busybox-static";
const WHAT: &str = "the guest's shell";
const REMEDY: &str = "install a statically linked busybox, so that it is in PATH";

/// A statically linked busybox and the names that it answers to.
pub(crate) struct Busybox {
    pub(crate) path: PathBuf,
    pub(crate) applets: Vec<String>,
}

impl Busybox {
    pub(crate) fn find() -> Result<Self, PackageError> {
        let own = install::find("busybox").filter(|path| program::libraries(path).is_ok_and(|libraries| libraries.is_empty()));
        let path = match own {
            Some(path) => path,
            None => packaged()?,
        };
        let incomplete = || PackageError::Incomplete { package: PACKAGE.to_owned(), path: path.clone(), file: "list of applets" };
        let output = Command::new(&path).arg("--list").stdin(Stdio::null()).output().map_err(|_| incomplete())?;
        let applets: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        if applets.is_empty() { Err(incomplete()) } else { Ok(Self { path, applets }) }
    }
}

fn packaged() -> Result<PathBuf, PackageError> {
    let parent = cache("programs", WHAT)?;
    let target = parent.join(PACKAGE);
    if !target.exists() {
        let _lock = lock(&parent)?;
        if !target.exists() {
            tracing::warn!("downloading {PACKAGE} with apt-get into {}, once", parent.display());
            Apt { what: WHAT, remedy: REMEDY, options: Vec::new() }.unpack(PACKAGE, &target)?;
        }
    }
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| target.join(place));
    places.into_iter().find(|path| path.exists()).ok_or(PackageError::Incomplete {
        package: PACKAGE.to_owned(),
        path: target,
        file: "busybox",
    })
}
