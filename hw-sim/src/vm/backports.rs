//! Debian's backports suite on a machine whose apt does not know it: a configuration of apt in the user's cache. The system's own sources
//! are read, for the mirror and its key, and never changed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::package::{Apt, PackageError, unusable};

/// What has the suite's name.
const OS_RELEASE: &str = "/etc/os-release";

/// The keys of Debian's archive, in the order of preference; apt does not say which ones it uses for a source.
const KEYRINGS: [&str; 2] = ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// An apt that knows nothing but the backports of the running Debian, with fresh lists in `cache`.
pub(crate) fn apt(system: &Apt, package: &str, cache: &Path) -> Result<Apt, PackageError> {
    let unknown = |remedy: &str| PackageError::Unknown { what: system.what, package: package.to_owned(), remedy: remedy.to_owned() };
    let release = fs::read_to_string(OS_RELEASE).unwrap_or_default();
    let suite = codename(&release).ok_or_else(|| unknown("the running Debian has no name in /etc/os-release"))?;
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let targets = system.run("apt-get", &["indextargets".as_ref(), "--format".as_ref(), format.as_ref()], package, None)?;
    let keyring = KEYRINGS.into_iter().find(|keyring| Path::new(keyring).exists());
    let source = source(&targets, &suite, keyring).ok_or_else(|| unknown("apt's sources have no component main of the running Debian"))?;

    let list = cache.join("sources.list");
    let (lists, archives, status) = (cache.join("lists"), cache.join("archives"), cache.join("status"));
    for directory in [lists.join("partial"), archives.join("partial")] {
        fs::create_dir_all(&directory).map_err(unusable(&directory))?;
    }
    fs::write(&list, source).map_err(unusable(&list))?;
    fs::write(&status, "").map_err(unusable(&status))?;

    let mut options = Vec::new();
    for (name, path) in [
        ("Dir::Etc::sourcelist", list.as_path()),
        ("Dir::Etc::sourceparts", Path::new("/dev/null")),
        ("Dir::State::lists", &lists),
        // What is installed on this system does not matter.
        ("Dir::State::status", &status),
        ("Dir::Cache", cache),
        ("Dir::Cache::archives", &archives),
    ] {
        let mut option = OsString::from(format!("{name}="));
        option.push(path);
        options.extend(["-o".into(), option]);
    }
    // apt's own user cannot write to this user's cache. A missing file of a mirror is an error, not a warning.
    options.extend(
        ["-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Languages=none"].map(OsString::from),
    );
    let apt = Apt { what: system.what, remedy: system.remedy, options };
    tracing::warn!("fetching the lists of {suite}-backports into {}, once", cache.display());
    apt.update(package)?;
    Ok(apt)
}

/// The suite's name in the text of os-release.
fn codename(release: &str) -> Option<String> {
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?.trim_matches('"');
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// The source of the backports of `suite`, from apt's index targets.
fn source(targets: &str, suite: &str, keyring: Option<&str>) -> Option<String> {
    let signed_by = keyring.map(|keyring| format!("[signed-by={keyring}] ")).unwrap_or_default();
    targets.lines().find_map(|line| {
        let [uri, release, component] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
        (release == suite && component == "main").then(|| format!("deb {signed_by}{uri} {suite}-backports main\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_systems_own_mirror() {
        let targets = "http://other.example/x|nodistro|main\nhttp://m.example/debian|book|contrib\nhttp://m.example/debian|book|main\n";
        assert_eq!(source(targets, "book", None).unwrap(), "deb http://m.example/debian book-backports main\n");
        assert_eq!(source(targets, "book", Some("/k")).unwrap(), "deb [signed-by=/k] http://m.example/debian book-backports main\n");
        assert_eq!(source(targets, "worm", None), None);
    }

    #[test]
    fn the_suite_is_the_running_debians() {
        assert_eq!(codename("NAME=x\nVERSION_CODENAME=book\n").as_deref(), Some("book"));
        assert_eq!(codename("VERSION_CODENAME=\"book\"").as_deref(), Some("book"));
        assert_eq!(codename("VERSION_CODENAME=\n"), None);
    }
}
