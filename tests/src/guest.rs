//! Guests: `pagewire vm` with a script in it, and what the script found out, a section a command.
//!
//! A guest takes seconds to boot, so a test does all that belongs together in one. The script says what it does in functions of its own
//! (see [`PRELUDE`]); what each command wrote, and its exit code, come back by the command's name. Where a script has to wait until
//! something has arrived on this host, it reads a line from its standard input, which the test writes ([`Running::go`]).

use std::ffi::OsString;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pagewire_tests::command::{Figures, Run, SLIRP, pagewire, program, start};

/// The first NIC of every guest.
pub const NIC: &str = "pci:0000:00:02.0";

/// How long a guest may take, from its start to its end.
const PATIENCE: Duration = Duration::from_secs(240);

/// What every script begins with.
///
/// - `try NAME COMMAND...` runs a command to its end;
/// - `begin NAME COMMAND...` starts one, with its number in `$pid`, and `end NAME` waits for it;
/// - `say NAME WORD...` is a result that the script has found out itself;
/// - `go` waits for the host's word, and fails the script when there is none;
/// - `now` prints the time since the boot in hundredths of a second;
/// - `sending PID FILE` waits until that process has mapped the file for its NIC: it sends;
/// - `$pagewire` is the program, and `$slirp` says what it has to know about QEMU's user network: with the host's Ethernet address, since
///   QEMU's receiver is deaf for the first second, and so to answers.
const PRELUDE: &str = r#"
    show() {
        echo "== $1 code $2"
        echo "== $1 errors"; cat "/run/$1.errors"
        echo "== $1 output"; cat "/run/$1.output"
    }
    try() {
        local name=$1; shift
        "$@" >"/run/$name.output" 2>"/run/$name.errors" </dev/null
        show "$name" $?
    }
    begin() {
        local name=$1; shift
        "$@" >"/run/$name.output" 2>"/run/$name.errors" </dev/null &
        pid=$!
        eval "pid_$name=$pid"
    }
    end() {
        eval "wait \$pid_$1"
        show "$1" $?
    }
    say() {
        local name=$1; shift
        echo "$@" >"/run/$name.output"
        : >"/run/$name.errors"
        show "$name" 0
    }
    go() {
        read -r word || { echo "no word from the host" >&2; exit 99; }
    }
    now() {
        read -r up idle </proc/uptime
        echo "${up%.*}${up#*.}"
    }
    sending() {
        for turn in $(seq 300); do
            grep -qF "$2" "/proc/$1/maps" && return
            [ -d "/proc/$1" ] || return
            usleep 30000
        done
    }
"#;

/// The kernels that the guests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The running Debian's (6.1 on Debian 12).
    Debian,
    /// Its backports' (6.12 on Debian 12), where they can be reached.
    Backports,
}

/// A guest before its boot.
#[derive(Debug)]
pub struct Guest {
    kernel: Kernel,
    options: Vec<OsString>,
}

impl Guest {
    /// With one e1000 on QEMU's user network, and the program.
    pub fn new(kernel: Kernel) -> Self {
        let mut guest = Self { kernel, options: Vec::new() };
        if kernel == Kernel::Backports {
            guest.options.extend(["--kernel", "backports"].map(OsString::from));
        }
        guest.share(program())
    }

    /// With another NIC instead.
    pub fn nic(mut self, nic: &str) -> Self {
        self.options.extend(["--nic", nic].map(OsString::from));
        self
    }

    /// Whose clock counts instructions.
    pub fn icount(mut self) -> Self {
        self.options.push("--icount".into());
        self
    }

    /// With so much memory.
    pub fn memory(mut self, size: &str) -> Self {
        self.options.extend(["--memory", size].map(OsString::from));
        self
    }

    /// With one more word for `pagewire vm`.
    pub fn option(mut self, word: &str) -> Self {
        self.options.push(word.into());
        self
    }

    /// With a file or directory of this host under its own path.
    pub fn share(mut self, path: &Path) -> Self {
        self.options.extend(["--share".into(), path.into()]);
        self
    }

    /// Boots it and runs `script` with `$1` and so on.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(self, script: &str, arguments: &[&str]) -> Running {
        let (reader, word) = std::io::pipe().expect("a pipe");
        let script = format!("{PRELUDE}\npagewire={} slirp='{SLIRP} --json'\n{script}", program().display());
        let mut command = pagewire(["vm"]);
        command.args(self.options).args(["--", "sh", "-c", &script, "script"]).args(arguments).stdin(reader);
        Running { kernel: self.kernel, run: start(command), word }
    }

    /// As [`start`](Self::start), to the end. `None`, and a line about it, where the kernel cannot be reached.
    ///
    /// # Panics
    /// As [`Running::end`].
    pub fn run(self, script: &str, arguments: &[&str]) -> Option<Told> {
        self.start(script, arguments).end()
    }
}

/// A guest that boots, or runs its script.
#[derive(Debug)]
pub struct Running {
    kernel: Kernel,
    run: Run,
    word: PipeWriter,
}

impl Running {
    /// Says the word that the script's `go` waits for.
    ///
    /// # Panics
    /// When the guest is gone.
    pub fn go(&mut self) {
        self.word.write_all(b"go\n").unwrap_or_else(|error| panic!("the guest is gone: {error}: {}", self.run.complaints()));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.run.has_ended()
    }

    /// Waits for its end. `None`, and a line about it, where the kernel cannot be reached: there alone.
    ///
    /// # Panics
    /// When the script fails (its last command decides), or does not end.
    pub fn end(self) -> Option<Told> {
        let Self { kernel, run, word } = self;
        drop(word);
        let ended = run.wait_at_most(PATIENCE);
        // Told by apt's words before anything boots: it could not fetch, or does not know the package.
        if kernel == Kernel::Backports
            && ended.status.code() == Some(1)
            && ended.stderr.contains("the guest's kernel comes from the package")
        {
            println!("NOT TESTED on the backports' kernel, which cannot be reached from here: {}", ended.stderr);
            return None;
        }
        let told = Told::parse(&ended.stdout);
        assert_eq!(ended.status.code(), Some(0), "the script failed: {}", ended.all());
        Some(told)
    }
}

/// What a script has found out.
#[derive(Debug)]
pub struct Told {
    text: String,
    results: Vec<Answer>,
}

/// What a command of a script did.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its name in the script.
    pub name: String,
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub output: String,
    /// Its error stream.
    pub errors: String,
}

impl Told {
    fn parse(text: &str) -> Self {
        let (mut results, mut into_errors) = (Vec::<Answer>::new(), true);
        for line in text.split_inclusive('\n') {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (words.as_slice(), results.last_mut()) {
                (["==", name, "code", code], _) => {
                    let code = code.parse().expect("a number");
                    results.push(Answer { name: (*name).to_owned(), code, ..Answer::default() });
                }
                (["==", _, "errors"], _) => into_errors = true,
                (["==", _, "output"], _) => into_errors = false,
                (_, Some(last)) if into_errors => last.errors.push_str(line),
                (_, Some(last)) => last.output.push_str(line),
                (_, None) => {}
            }
        }
        Self { text: text.to_owned(), results }
    }

    /// What the command with this name did.
    ///
    /// # Panics
    /// When the script has not come that far.
    pub fn of(&self, name: &str) -> &Answer {
        self.results.iter().find(|answer| answer.name == name).unwrap_or_else(|| panic!("there is no {name} in\n{}", self.text))
    }

    /// The number that the script said under this name.
    ///
    /// # Panics
    /// When it said none.
    pub fn number(&self, name: &str) -> i64 {
        let text = self.of(name).output.trim();
        text.parse().unwrap_or_else(|_| panic!("{name} is {text:?} in\n{}", self.text))
    }
}

impl Answer {
    /// Itself, if its exit code is `code`.
    ///
    /// # Panics
    /// When it is another one.
    pub fn with_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The figures of a `pagewire send --json` that ended with `code`.
    ///
    /// # Panics
    /// When it ended otherwise, or has no figures that add up.
    pub fn figures(&self, code: i32) -> Figures {
        let value = serde_json::from_str(&self.with_code(code).output).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        let figures = Figures(value);
        figures.add_up();
        figures
    }

    /// The figures of a send that is complete.
    ///
    /// # Panics
    /// When it is not.
    pub fn sent(&self) -> Figures {
        let figures = self.figures(0);
        assert_eq!(figures.text("stopped"), "complete", "{self:#?}");
        figures
    }

    /// That it failed with code 1, and all of `texts` in its errors, which are one line without a panic.
    ///
    /// # Panics
    /// When it did not.
    pub fn refused(&self, texts: &[&str]) {
        self.with_code(1);
        for text in texts {
            assert!(self.errors.contains(text), "{text:?} is not in the errors of {self:#?}");
        }
        assert!(self.errors.starts_with("pagewire: ") && self.errors.trim_end().lines().count() == 1, "{self:#?}");
    }

    /// The lines of its output that contain `text`.
    pub fn lines<'a>(&'a self, text: &str) -> Vec<&'a str> {
        self.output.lines().filter(|line| line.contains(text)).collect()
    }
}

/// An example of the package pagewire-vfio, built by cargo beside [`program`].
///
/// # Panics
/// When it cannot be built; the message has cargo's output.
pub fn example(name: &str) -> PathBuf {
    use std::process::{Command, Stdio};
    // TARGET[/TRIPLE]/PROFILE/pagewire, as `program` has found it.
    let profile = program().parent().expect("a program is in a directory");
    let above = profile.parent().expect("a profile is in a target directory");
    let named = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args(["build", "--package", "pagewire-vfio", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["--profile", Some(named(profile)).filter(|name| name != "debug").as_deref().unwrap_or("dev")]);
    // cargo leaves a CACHEDIR.TAG in the target directory.
    if above.join("CACHEDIR.TAG").exists() {
        cargo.arg("--target-dir").arg(above);
    } else {
        cargo.args(["--target", &named(above)]).arg("--target-dir").arg(above.parent().expect("a triple is in a target directory"));
    }
    let output = cargo.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{cargo:?}: {error}"));
    assert!(output.status.success(), "{cargo:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    profile.join("examples").join(name)
}
