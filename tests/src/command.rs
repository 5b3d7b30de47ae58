//! The real command: found or built, started, waited for with a bound.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::{PATIENCE, need_root, process, tool, wait_for, wait_within};

/// The `pagewire` program of the same profile and target directory as this test.
///
/// cargo builds the programs of a package for the integration tests of that package alone, so `cargo test -p pagewire-tests` may find none, or an
/// old one. cargo is therefore asked to build it, once a process: where it is up to date that takes a fraction of a second. Test programs that run
/// at once wait for each other at cargo's own lock.
///
/// # Panics
/// When it cannot be built; the message has cargo's output.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("--bin", "pagewire", "pagewire"))
}

/// An example of the library, built as [`program`] is.
///
/// # Panics
/// When it cannot be built; the message has cargo's output.
pub fn example(name: &str) -> PathBuf {
    build("--example", name, &format!("examples/{name}"))
}

fn build(kind: &str, name: &str, place: &str) -> PathBuf {
    // .../target[/TRIPLE]/PROFILE/deps/test-0123456789abcdef
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.ancestors().nth(2).expect("cargo puts tests two directories below its own");
    let profile_name = profile.file_name().and_then(OsStr::to_str).expect("profiles have plain names");
    let above = profile.parent().expect("a profile is in a target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args(["build", "--package", "pagewire", kind, name]);
    cargo.args(["--profile", if profile_name == "debug" { "dev" } else { profile_name }]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // cargo leaves a CACHEDIR.TAG in the target directory; with --target there is one directory more.
    match above.file_name().filter(|_| !above.join("CACHEDIR.TAG").exists()) {
        Some(triple) => {
            cargo.arg("--target").arg(triple).arg("--target-dir").arg(above.parent().expect("a triple is in a target directory"))
        }
        None => cargo.arg("--target-dir").arg(above),
    };
    let output = cargo.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{cargo:?}: {error}"));
    assert!(output.status.success(), "{cargo:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let program = profile.join(place);
    assert!(program.is_file(), "{} was built, and is not there", program.display());
    program
}

/// `pagewire` with these arguments.
pub fn pagewire(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

/// `pagewire send --json` of a file, with further options as on a command line (which have no spaces in them).
pub fn send(file: impl AsRef<OsStr>, nic: &str, to: &str, options: &str) -> Command {
    let mut command = pagewire(["send".as_ref(), file.as_ref()]);
    command.args(["--nic", nic, "--to", to, "--json"]).args(options.split_whitespace());
    command
}

/// `command`, which is one of [`pagewire`]'s, as a user without any rights; `directory` is opened to everybody.
///
/// # Panics
/// For everyone but root, who alone can become somebody else.
pub fn as_nobody(directory: &Path, command: &Command) -> Command {
    need_root("becoming another user");
    // The target directory may be closed to others, so the program is copied.
    let copy = directory.join("pagewire");
    fs::copy(command.get_program(), &copy).expect("room for a copy");
    for path in [directory, &copy] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("own files");
    }
    // A moment ago the copy was open for writing, and a process that another test has just started may have inherited that.
    wait_for("the copy to be executable", || {
        let output = Command::new(&copy).arg("--version").output();
        output.is_ok_and(|output| output.status.success()).then_some(())
    });
    let mut unprivileged = Command::new(tool("setpriv", "util-linux"));
    unprivileged.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]).arg(copy).args(command.get_args());
    unprivileged
}

/// The Ethernet address of this host on QEMU's user network, which spares a send the second until the simulated receiver hears an answer.
pub const SLIRP: &str = "--ip 10.0.2.15/24 --station 52:55:0a:00:02:02";

/// As [`SLIRP`], but the NIC asks by ARP, as a user's does.
pub const SLIRP_BY_ARP: &str = "--ip 10.0.2.15/24";

/// Starts `command` and collects what it says.
///
/// # Panics
/// When it does not start.
pub fn start(mut command: Command) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = Said::collect(child.stdout.take().expect("piped"));
    let complained = Said::collect(child.stderr.take().expect("piped"));
    Run { child, line, said, complained, status: None }
}

/// Runs `command`, with nothing on its standard input unless it says otherwise, to its end.
///
/// # Panics
/// When it does not start, or does not end within [`PATIENCE`].
pub fn run(command: Command) -> Ended {
    start(command).wait()
}

/// A command that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Run {
    child: Child,
    line: String,
    said: Said,
    complained: Said,
    status: Option<ExitStatus>,
}

impl Run {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its error stream until now.
    pub fn complaints(&self) -> String {
        self.complained.text()
    }

    /// The number of the QEMU that it has started, once it has.
    ///
    /// # Panics
    /// When it has none within [`PATIENCE`], or ends.
    pub fn qemu(&mut self) -> u32 {
        wait_for("QEMU among the command's children", || {
            let found = process::children(self.pid()).into_iter().find(|child| process::name(*child).starts_with("qemu-system"));
            assert!(found.is_some() || !self.has_ended(), "{}", self.now());
            found
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_some()
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: process::Signal) {
        if !self.has_ended() {
            process::signal(self.pid(), signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come within [`PATIENCE`].
    pub fn wait(self) -> Ended {
        self.wait_at_most(PATIENCE)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come within `time`.
    pub fn wait_at_most(mut self, time: Duration) -> Ended {
        assert!(wait_within(time, || self.has_ended().then_some(())).is_some(), "not ended after {time:?}: {}", self.now());
        let status = self.status.expect("ended");
        // Somebody who has inherited the streams may keep them open, so this is bounded too.
        let texts = [&mut self.said, &mut self.complained].map(|said| said.all());
        let [stdout, stderr] = texts;
        Ended { line: std::mem::take(&mut self.line), status, stdout, stderr }
    }

    fn now(&self) -> String {
        format!("{}\n--- output\n{}\n--- errors\n{}", self.line, self.said.text(), self.complained.text())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    line: String,
    /// How.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its error stream.
    pub stderr: String,
}

impl Ended {
    /// Itself, if its exit status is `code`.
    ///
    /// # Panics
    /// When it is another one; the message has all that the command said.
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.all());
        self
    }

    /// The one line of JSON that is all of its standard output.
    ///
    /// # Panics
    /// When that is anything else.
    pub fn json(&self) -> Value {
        let line = self.stdout.strip_suffix('\n').filter(|line| !line.contains('\n'));
        let line = line.unwrap_or_else(|| panic!("standard output is not one line: {}", self.all()));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.all()))
    }

    /// The figures of a `send` that was complete.
    ///
    /// # Panics
    /// When it was not.
    pub fn sent(self) -> Figures {
        let ended = self.with_code(0);
        let figures = Figures(ended.json());
        assert_eq!(figures.text("stopped"), "complete", "{}", ended.all());
        figures
    }

    /// The figures of a `send` that ended with `code`.
    ///
    /// # Panics
    /// When it ended otherwise, or has no figures.
    pub fn stopped(&self, code: i32) -> Figures {
        assert_eq!(self.status.code(), Some(code), "{}", self.all());
        Figures(self.json())
    }

    /// That the error stream has all of `texts`.
    ///
    /// # Panics
    /// When it lacks one.
    pub fn complains_of(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in the errors: {}", self.all());
        }
    }

    /// All that is known, for a message.
    pub fn all(&self) -> String {
        format!("{} ended with {}\n--- output\n{}\n--- errors\n{}", self.line, self.status, self.stdout, self.stderr)
    }
}

/// The figures of a report.
#[derive(Clone, Debug)]
pub struct Figures(pub Value);

impl Figures {
    /// A number that is not negative.
    ///
    /// # Panics
    /// When it is missing or something else.
    pub fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {}", self.0))
    }

    /// A text.
    ///
    /// # Panics
    /// When it is missing or something else.
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {}", self.0))
    }

    /// How many bytes were copied for which reason.
    ///
    /// # Panics
    /// When that is missing or malformed.
    pub fn copied_because(&self) -> Vec<(String, u64)> {
        let reasons = self.0["copy_reasons"].as_object().unwrap_or_else(|| panic!("no copy_reasons in {}", self.0));
        reasons.iter().map(|(reason, bytes)| (reason.clone(), bytes.as_u64().expect("bytes"))).collect()
    }

    /// What every report has to keep: each byte was gathered or copied, each copied one has its reason, no frame is without a descriptor, no doorbell
    /// without a frame, nothing was lost.
    ///
    /// # Panics
    /// When it does not.
    pub fn add_up(&self) {
        let [bytes, gathered, copied] = ["bytes", "bytes_gathered", "bytes_copied"].map(|name| self.number(name));
        assert_eq!(gathered + copied, bytes, "{}", self.0);
        assert_eq!(self.copied_because().iter().map(|(_, bytes)| bytes).sum::<u64>(), copied, "{}", self.0);
        let [frames, descriptors, doorbells] = ["frames", "descriptors", "doorbells"].map(|name| self.number(name));
        assert!(descriptors >= frames && doorbells <= frames && (doorbells > 0) == (frames > 0), "{}", self.0);
        assert_eq!(self.number("frames_lost"), 0, "{}", self.0);
    }
}

/// What comes out of a stream.
#[derive(Debug)]
struct Said {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Said {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// All of it, once the stream is closed; what there is when it is not closed soon.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take()
            && wait_within(Duration::from_secs(10), || reader.is_finished().then_some(())).is_some()
        {
            let _ = reader.join();
        }
        self.text()
    }
}
