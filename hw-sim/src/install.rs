//! Finds the programs that the rig starts, and installs the Debian package of one that is missing, once.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rig::last_lines;

/// Where administrators' programs are; not in every user's PATH.
const MORE_PLACES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How many lines of apt's output an error shows.
const SHOWN_LINES: usize = 12;

/// A program that is missing and could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// This user may not install, or there is no apt-get.
    #[error("{program} is missing; install it: {command}")]
    Missing {
        /// the program
        program: String,
        /// what to type
        command: String,
    },
    /// apt-get failed.
    #[error("{program} is missing, and `{command}` failed ({status}):\n{output}")]
    Failed {
        /// the program
        program: String,
        /// what was run
        command: String,
        /// how it ended
        status: String,
        /// the last lines of what it said
        output: String,
    },
    /// The package is there, the program is not.
    #[error("{program} is still missing after the package {package} was installed: put the directory that has it into PATH")]
    NotInPackage {
        /// the program
        program: String,
        /// the package
        package: String,
    },
    /// Another process may be installing, and that cannot be found out.
    #[error("{program} is missing, and the lock {path} for its installation cannot be had: {source}")]
    Lock {
        /// the program
        program: String,
        /// the lock file
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
}

/// The path of `program`. When it is missing and this user is root, or may become root without a password (`sudo -n`), its
/// `debian_package` is installed with apt-get; this is told by one `tracing::warn!` and can take minutes. Of several processes that
/// miss it at once, one installs and the others wait.
///
/// # Errors
/// [`InstallError`], with the command to type or the last lines of apt's output.
pub fn tool(program: &str, debian_package: &str) -> Result<PathBuf, InstallError> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    let missing = |command: &str| InstallError::Missing { program: program.to_owned(), command: format!("{command} {debian_package}") };
    let Some(apt) = find("apt-get") else {
        return Err(missing("with this system's package manager; on Debian it is in the package"));
    };
    let Some(become_root) = root_prefix() else {
        return Err(missing("sudo apt-get install --no-install-recommends"));
    };

    let path = env::temp_dir().join("pagewire-install.lock");
    // Unlocked when it is closed; the file stays, since removing it would let two hold "the" lock.
    let _lock = lock(&path).map_err(|source| InstallError::Lock { program: program.to_owned(), path, source })?;
    if let Some(path) = find(program) {
        return Ok(path);
    }
    tracing::warn!("installing {debian_package} with apt-get, once: {program} is missing");
    // Old lists may name packages that are gone; a failure shows in the installation, if it matters.
    let updated = run(&become_root, &apt, &["update"]);
    let options = ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600", debian_package];
    run(&become_root, &apt, &options).map_err(|(status, output)| InstallError::Failed {
        program: program.to_owned(),
        command: format!("apt-get {}", options.join(" ")),
        status,
        output: match updated {
            Ok(()) => output,
            Err((_, earlier)) => format!("{earlier}\n{output}"),
        },
    })?;
    find(program).ok_or_else(|| InstallError::NotInPackage { program: program.to_owned(), package: debian_package.to_owned() })
}

/// The path of `program` if it is there: in PATH, or where administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(MORE_PLACES.map(PathBuf::from));
    places.map(|place| place.join(program)).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What to put before a command to run it as root; `None` when this user cannot.
fn root_prefix() -> Option<Vec<PathBuf>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = find("sudo")?;
    let allowed = Command::new(&sudo).args(["-n", "true"]).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    allowed.then(|| vec![sudo, "-n".into()])
}

fn lock(path: &Path) -> io::Result<File> {
    // Writing is not needed to lock, and a file that another user made cannot be written.
    let file = File::open(path).or_else(|_| OpenOptions::new().create(true).append(true).open(path))?;
    file.lock()?;
    Ok(file)
}

/// Runs apt with nobody to ask. On failure: how it ended, and its last lines.
fn run(become_root: &[PathBuf], apt: &Path, arguments: &[&str]) -> Result<(), (String, String)> {
    // `env` because sudo does not pass variables on.
    let mut line = become_root.iter().cloned().chain(["env".into(), "DEBIAN_FRONTEND=noninteractive".into(), apt.to_owned()]);
    let Some(first) = line.next() else { return Ok(()) };
    let output = Command::new(first).args(line).args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err((output.status.to_string(), last_lines(&[output.stdout, output.stderr].concat(), SHOWN_LINES))),
        Err(error) => Err((error.to_string(), String::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_path_is_found_and_nothing_is_installed() {
        assert!(tool("sh", "no-such-package").unwrap().ends_with("sh"));
    }

    #[test]
    fn a_directory_and_a_file_without_x_are_no_programs() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("data"), "").unwrap();
        assert!(!is_program(directory.path()));
        assert!(!is_program(&directory.path().join("data")));
    }

    #[test]
    fn the_lock_is_exclusive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(held);
        assert!(File::open(&path).unwrap().try_lock().is_ok());
    }
}
