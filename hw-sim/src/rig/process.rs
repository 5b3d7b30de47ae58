//! The QEMU process: started so that it cannot outlive this one, watched, and ended.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::timeout::poll_until;

/// How much of what a program said is kept, in bytes.
const TAIL_LEN: usize = 4096;
/// How many lines of it an error shows.
const TAIL_LINES: usize = 8;

/// A child process whose last words are kept. Killed and waited for when dropped.
pub(crate) struct Process {
    child: Mutex<Child>,
    pid: u32,
    tail: Arc<Tail>,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with nothing on its standard input and output, in a process group of its own: Ctrl-C in a terminal goes to the
    /// whole foreground group, and must not end the device before the driver has drained its rings.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = spawn_on_keeper(command)?;
        let stderr = child.stderr.take();
        // From here on the child is ended whatever fails.
        let mut process = Self { pid: child.id(), child: Mutex::new(child), tail: Arc::default(), listener: None };
        if let Some(stderr) = stderr {
            let tail = Arc::clone(&process.tail);
            process.listener = Some(std::thread::Builder::new().name("rig-stderr".into()).spawn(move || tail.collect(stderr))?);
        }
        Ok(process)
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How the process ended and what it said last; `None` while it lives. A process that is just ending gets `patience`.
    pub(crate) fn obituary(&self, patience: Duration) -> Option<String> {
        let status = poll_until(Instant::now() + patience, || self.exit_status())?;
        self.tail.wait_closed(Duration::from_millis(500));
        Some(format!("QEMU ended ({status}){}", self.tail))
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let mut child = self.child();
            // Fails only when it has been waited for already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Spawns on the one thread that lives as long as this process. The kernel sends the parent-death signal when the *thread* that started
/// the child ends, so a rig that a test's thread made would die with that thread.
fn spawn_on_keeper(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static KEEPER: Mutex<Option<Sender<Order>>> = Mutex::new(None);

    let gone = || io::Error::other("the thread that starts QEMU is gone");
    let (answer, child) = channel();
    {
        let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = match &mut *keeper {
            Some(orders) => orders,
            empty => {
                let (orders, inbox) = channel::<Order>();
                std::thread::Builder::new().name("rig-keeper".into()).spawn(move || {
                    for (mut command, answer) in inbox {
                        // Without a taker the child would be left alone: it is ended instead.
                        if let Err(unwanted) = answer.send(command.spawn())
                            && let Ok(mut child) = unwanted.0
                        {
                            let _ = child.kill();
                            let _ = child.wait();
                        }
                    }
                })?;
                empty.insert(orders)
            }
        };
        orders.send((command, answer)).map_err(|_| gone())?;
    }
    child.recv().map_err(|_| gone())?
}

/// The last of what a process wrote. Bounded, whatever it writes.
#[derive(Default)]
pub(crate) struct Tail {
    text: Mutex<Said>,
    closed: Condvar,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    closed: bool,
}

impl Tail {
    fn collect(&self, mut from: ChildStderr) {
        let mut chunk = [0; 1024];
        // An error ends it as the end does: there is nobody to tell.
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let mut said = self.said();
            said.bytes.extend_from_slice(&chunk[..count]);
            let excess = said.bytes.len().saturating_sub(TAIL_LEN);
            said.bytes.drain(..excess);
        }
        self.said().closed = true;
        self.closed.notify_all();
    }

    fn wait_closed(&self, patience: Duration) {
        let _ = self.closed.wait_timeout_while(self.said(), patience, |said| !said.closed);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match last_lines(&self.said().bytes, TAIL_LINES) {
            lines if lines.is_empty() => f.write_str(" without a word"),
            lines => write!(f, "; it said last: {lines}"),
        }
    }
}

/// The last `count` lines of a program's output that are not blank, for an error message.
pub(crate) fn last_lines(output: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command).unwrap()
    }

    #[test]
    fn the_obituary_has_the_status_and_the_last_lines() {
        let process = shell("for n in 1 2 3 4 5 6 7 8 9; do echo line $n >&2; done; exit 3");
        let text = process.obituary(Duration::from_secs(10)).unwrap();
        assert!(text.contains("exit status: 3") && text.contains("line 2\n") && text.ends_with("line 9"), "{text}");
        assert!(!text.contains("line 1\n"), "{text}");
    }

    #[test]
    fn a_living_process_has_no_obituary_and_ends_when_dropped() {
        let process = shell("exec sleep 1000");
        let pid = process.pid();
        assert_eq!(process.obituary(Duration::ZERO), None);
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let process = std::thread::spawn(|| shell("exec sleep 1000")).join().unwrap();
        assert_eq!(process.obituary(Duration::from_millis(100)), None);
    }

    #[test]
    fn what_a_process_says_is_bounded() {
        let process = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2");
        assert!(process.obituary(Duration::from_secs(10)).unwrap().len() < TAIL_LEN + 100);
    }
}
