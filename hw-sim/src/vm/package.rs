//! Debian packages, downloaded with apt and unpacked into the user's cache: nothing is installed, and no privileges are needed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install;
use crate::rig::last_lines;

/// How many lines of a program's output an error shows.
const SHOWN_LINES: usize = 12;

/// A package that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// This is not a Debian system.
    #[error("{what} comes from Debian's package {package}, and there is no {program} on this system; {remedy}")]
    NotDebian {
        /// what is wanted
        what: &'static str,
        /// the package
        package: String,
        /// the program that is missing
        program: &'static str,
        /// what to do
        remedy: &'static str,
    },
    /// A program that downloads or unpacks it failed.
    #[error("{what} comes from the package {package}, and `{command}` failed ({status}): is the network there?\n{output}")]
    Failed {
        /// what is wanted
        what: &'static str,
        /// the package
        package: String,
        /// what was run
        command: String,
        /// how it ended
        status: String,
        /// the last lines of what it said
        output: String,
    },
    /// apt knows no such package.
    #[error("{what} comes from the package {package}, which apt does not know; {remedy}")]
    Unknown {
        /// what is wanted
        what: &'static str,
        /// the package
        package: String,
        /// what to do
        remedy: String,
    },
    /// The package has come, but not what it was for.
    #[error("the package {package} in {path} has no {file}: remove that directory, and it is downloaded again")]
    Incomplete {
        /// the package
        package: String,
        /// where it was unpacked
        path: PathBuf,
        /// what is missing
        file: &'static str,
    },
    /// There is no directory for it.
    #[error("there is no place for {0}: set HOME or XDG_CACHE_HOME to a directory of yours")]
    NoHome(&'static str),
    /// The cache cannot be used.
    #[error("the cache {path} cannot be used: {source}; correct its rights, or set XDG_CACHE_HOME to another directory")]
    Cache {
        /// the file or directory
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
}

/// A directory of the cache, `…/pagewire/NAME`, made if it is missing.
pub(crate) fn cache(name: &str, what: &'static str) -> Result<PathBuf, PackageError> {
    let absolute = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache"))).ok_or(PackageError::NoHome(what))?;
    let path = base.join("pagewire").join(name);
    fs::create_dir_all(&path).map_err(unusable(&path))?;
    Ok(path)
}

/// The error of an operation on `path` in the cache.
pub(crate) fn unusable(path: &Path) -> impl Fn(io::Error) -> PackageError {
    move |source| PackageError::Cache { path: path.to_owned(), source }
}

/// Keeps other processes from changing `directory` as long as the result lives.
pub(crate) fn lock(directory: &Path) -> Result<File, PackageError> {
    let path = directory.join("lock");
    let take = || {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    take().map_err(unusable(&path))
}

/// apt, with the options of a [private configuration](super::backports) or none.
pub(crate) struct Apt {
    /// For messages: what the packages are for, and what to do without apt.
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
    pub(crate) options: Vec<OsString>,
}

impl Apt {
    /// The package behind `meta`: its first dependency whose name begins with `prefix`.
    pub(crate) fn behind(&self, meta: &str, prefix: &str) -> Result<String, PackageError> {
        let look = || -> Result<Option<String>, PackageError> {
            // It fails for an unknown package, too, which is told apart from nothing else.
            let listed = self.run("apt-cache", &["depends".as_ref(), meta.as_ref()], meta, None).or_else(|error| match error {
                PackageError::Failed { .. } => Ok(String::new()),
                error => Err(error),
            })?;
            let mut dependencies = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            Ok(dependencies.find(|name| name.starts_with(prefix)).map(str::to_owned))
        };
        if let Some(package) = look()? {
            return Ok(package);
        }
        let root = rustix::process::geteuid().is_root();
        if root && self.options.is_empty() {
            tracing::warn!("apt does not know {meta}: running apt-get update, once");
            self.update(meta)?;
        }
        look()?.ok_or_else(|| PackageError::Unknown {
            what: self.what,
            package: meta.to_owned(),
            remedy: match root {
                true => format!("is it Debian, on amd64? {}", self.remedy),
                false => format!("fetch the lists of packages: sudo apt-get update (or {})", self.remedy),
            },
        })
    }

    /// Fetches the lists of packages, in which `package` is looked for then.
    pub(crate) fn update(&self, package: &str) -> Result<(), PackageError> {
        self.run("apt-get", &["update".as_ref()], package, None).map(drop)
    }

    /// Downloads `package` and unpacks it as `target`, which appears only when it is complete.
    pub(crate) fn unpack(&self, package: &str, target: &Path) -> Result<(), PackageError> {
        let parent = target.parent().unwrap_or(target);
        let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent).map_err(unusable(parent))?;
        self.run("apt-get", &["download".as_ref(), package.as_ref()], package, Some(work.path()))?;
        let archive = only(work.path(), |name| name.ends_with(".deb")).map_err(unusable(work.path()))?;
        let archive = archive.ok_or(PackageError::Incomplete { package: package.to_owned(), path: work.path().into(), file: "archive" })?;
        let unpacked = work.path().join("unpacked");
        self.run("dpkg-deb", &["-x".as_ref(), archive.as_ref(), unpacked.as_ref()], package, None)?;
        fs::rename(&unpacked, target).map_err(unusable(target))
    }

    /// Runs one of apt's programs in `directory`; what it wrote.
    pub(crate) fn run(
        &self,
        program: &'static str,
        arguments: &[&OsStr],
        package: &str,
        directory: Option<&Path>,
    ) -> Result<String, PackageError> {
        let path = install::find(program).ok_or_else(|| PackageError::NotDebian {
            what: self.what,
            package: package.to_owned(),
            program,
            remedy: self.remedy,
        })?;
        let mut command = Command::new(path);
        if program != "dpkg-deb" {
            command.args(&self.options);
        }
        // The output is read here: in the language that this was written for.
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let failed = |status: String, output: &[u8]| {
            let line: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
            PackageError::Failed {
                what: self.what,
                package: package.to_owned(),
                command: format!("{program} {}", line.join(" ")),
                status,
                output: last_lines(output, SHOWN_LINES),
            }
        };
        match command.output() {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => Err(failed(output.status.to_string(), &[output.stdout, output.stderr].concat())),
            Err(error) => Err(failed(error.to_string(), &[])),
        }
    }
}

/// The first entry of `directory`, by name, that `wanted` takes.
pub(crate) fn only(directory: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Option<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found.into_iter().next())
}
