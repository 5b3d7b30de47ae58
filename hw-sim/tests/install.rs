//! A missing program is installed once, by whoever may. The apt-get and the sudo here are scripts of this test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use pagewire_hw_sim::install::tool;

/// Set for the copies of this program that look for the tool.
const SEEKER: &str = "PAGEWIRE_TEST_SEEKER";

/// A directory for programs, first in PATH, and one for temporary files.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(apt: &str) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.programs()).unwrap();
        place.add("apt-get", apt);
        // For those who are not root: everything that is asked of it is done.
        place.add("sudo", "shift; exec \"$@\"");
        place
    }

    fn programs(&self) -> PathBuf {
        self.directory.path().join("programs")
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.programs().join(name);
        std::fs::write(&path, format!("#!/bin/sh\nhere={}\n{script}\n", self.programs().display())).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn seek(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_seeker_looks_for_a_tool", "--nocapture"])
            .env(SEEKER, "1")
            .env("TMPDIR", self.directory.path())
            .env("PATH", format!("{}:/usr/bin:/bin", self.programs().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.programs().join("log")).unwrap()
    }
}

fn text(output: Output) -> String {
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn of_several_processes_that_miss_a_program_one_installs_it() {
    let place = Place::new(
        "echo \"$@ with $DEBIAN_FRONTEND\" >> $here/log
         case \"$1\" in install) printf '#!/bin/sh\\n' > $here/no-such-tool; chmod 755 $here/no-such-tool;; esac",
    );
    let seekers: Vec<Child> = (0..4).map(|_| place.seek()).collect();
    let found = format!("found {}", place.programs().join("no-such-tool").display());
    let told: Vec<String> = seekers.into_iter().map(|seeker| text(seeker.wait_with_output().unwrap())).collect();
    assert!(told.iter().all(|text| text.contains(&found)), "{told:?}");
    assert_eq!(
        place.log().lines().collect::<Vec<_>>(),
        ["update with noninteractive", "install -y --no-install-recommends -o DPkg::Lock::Timeout=600 the-package with noninteractive"]
    );
    let warnings = told.iter().filter(|text| text.contains("WARN") && text.contains("installing the-package with apt-get, once")).count();
    assert_eq!(warnings, 1, "{told:?}");
}

#[test]
fn a_failed_installation_shows_the_last_words_of_apt() {
    let place = Place::new("[ $1 = update ] || { echo 'E: Unable to locate package the-package' >&2; exit 100; }");
    let told = text(place.seek().wait_with_output().unwrap());
    assert!(told.contains("exit status: 100") && told.contains("E: Unable to locate package the-package"), "{told}");
    assert!(told.contains("`apt-get install -y"), "{told}");
}

#[test]
fn a_package_without_the_program_is_told() {
    let told = text(Place::new("true").seek().wait_with_output().unwrap());
    assert!(told.contains("no-such-tool is still missing after the package the-package was installed"), "{told}");
}

/// No test of its own: what the tests above start.
#[test]
fn the_seeker_looks_for_a_tool() {
    if std::env::var_os(SEEKER).is_some() {
        tracing_subscriber::fmt().with_ansi(false).init();
        match tool("no-such-tool", "the-package") {
            Ok(path) => println!("found {}", Path::display(&path)),
            Err(error) => println!("not found: {error}"),
        }
    }
}
