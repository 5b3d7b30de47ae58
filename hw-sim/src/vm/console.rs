//! What goes in and out of the guest while it runs: the command's streams, the kernel's console, and the lines that say how far it is.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::VmError;
use crate::rig::last_lines;

/// How often `stop` is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How much of the kernel's console is kept, in bytes, and how many lines of it an error shows.
const CONSOLE_LEN: usize = 16 << 10;
const CONSOLE_LINES: usize = 12;
/// What the kernel says when it is over. It should reset the machine then, but cannot always.
const PANIC: &[u8] = b"Kernel panic - not syncing";
/// How long the rest of its last words may take.
const DYING: Duration = Duration::from_secs(1);
/// How much is moved in one piece.
const CHUNK: usize = 16 << 10;

/// Where the command's streams go.
pub struct Streams<'s> {
    /// What the command reads; it finds the end of the file at once without. Bytes that the command leaves are read from it as well.
    pub stdin: Option<BorrowedFd<'s>>,
    /// Gets what the command writes to its standard output, as it comes.
    pub stdout: &'s mut dyn Write,
    /// Gets what it writes to its standard error. The two are separate lines from the guest, so their order among each other is lost.
    pub stderr: &'s mut dyn Write,
}

/// The host's ends of the guest's ports.
pub(crate) struct Ports {
    pub(crate) console: UnixStream,
    pub(crate) stdout: UnixStream,
    pub(crate) stderr: UnixStream,
    pub(crate) control: UnixStream,
    pub(crate) stdin: Option<UnixStream>,
}

/// When the guest must be how far.
pub(crate) struct Limits<'l> {
    pub(crate) start: Instant,
    /// For the boot.
    pub(crate) boot: Duration,
    /// For everything.
    pub(crate) total: Duration,
    /// Set from outside to end the guest.
    pub(crate) stop: &'l AtomicBool,
}

/// The command's exit code, and when it started.
pub(crate) struct Finish {
    pub(crate) code: i32,
    pub(crate) ready: Instant,
}

/// Moves everything until the command has ended and all that it wrote has been delivered.
///
/// # Errors
/// [`VmError::Ended`] without a `how` when QEMU is gone: the caller can say what became of it.
pub(crate) fn talk(ports: Ports, streams: &mut Streams<'_>, limits: &Limits<'_>) -> Result<Finish, VmError> {
    for port in [&ports.console, &ports.stdout, &ports.stderr, &ports.control].into_iter().chain(&ports.stdin) {
        port.set_nonblocking(true).map_err(VmError::setup("prepare a socket"))?;
    }
    let mut talk = Talk { console: Vec::new(), said: Vec::new(), ready: None, panicked: None, input: Input::new(&ports, streams.stdin) };
    loop {
        talk.wait(&ports).map_err(VmError::setup("wait for the guest"))?;
        talk.listen(&ports.console);
        if talk.panicked.is_some_and(|panicked| panicked.elapsed() >= DYING) {
            return Err(VmError::Ended { how: "its kernel panicked".to_owned(), console: talk.last_lines() });
        }
        // Before the streams: what the command wrote before its end is there when its end is.
        let over = talk.control(&ports.control)?;
        deliver(&ports.stdout, streams.stdout)?;
        deliver(&ports.stderr, streams.stderr)?;
        if let Some(code) = over {
            // Not before the start, whatever the guest says.
            let ready = talk.ready.unwrap_or_else(Instant::now);
            tracing::debug!("the guest's console: {}", talk.last_lines());
            return Ok(Finish { code, ready });
        }
        talk.input.forward();
        if limits.stop.load(Ordering::Relaxed) {
            return Err(VmError::Stopped);
        }
        let (limit, doing) = match talk.ready {
            None => (limits.boot.min(limits.total), "booting"),
            Some(_) => (limits.total, "running the command"),
        };
        if limits.start.elapsed() >= limit {
            return Err(VmError::Timeout { seconds: limit.as_secs_f32(), doing, console: talk.last_lines() });
        }
    }
}

struct Talk<'s> {
    console: Vec<u8>,
    /// The control line that is arriving.
    said: Vec<u8>,
    ready: Option<Instant>,
    panicked: Option<Instant>,
    input: Input<'s>,
}

impl Talk<'_> {
    /// Waits until there is something to do, at most a [`TICK`].
    fn wait(&self, ports: &Ports) -> io::Result<()> {
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(5);
        for port in [&ports.console, &ports.stdout, &ports.stderr, &ports.control] {
            polled.push(PollFd::new(port, PollFlags::IN));
        }
        if let Some((descriptor, flags)) = self.input.waits_for() {
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        }
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        match poll(&mut polled, Some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the end of the kernel's console.
    fn listen(&mut self, console: &UnixStream) {
        let mut chunk = [0; CHUNK];
        while let Some(bytes) = available(console, &mut chunk).filter(|bytes| !bytes.is_empty()) {
            self.console.extend_from_slice(bytes);
            let excess = self.console.len().saturating_sub(CONSOLE_LEN);
            self.console.drain(..excess);
            if self.panicked.is_none() && self.console.windows(PANIC.len()).any(|words| words == PANIC) {
                self.panicked = Some(Instant::now());
            }
        }
    }

    fn last_lines(&self) -> String {
        match last_lines(&self.console, CONSOLE_LINES) {
            lines if lines.is_empty() => "(nothing)".to_owned(),
            lines => lines,
        }
    }

    /// Takes the lines of init.sh; the exit code when the command has ended.
    fn control(&mut self, control: &UnixStream) -> Result<Option<i32>, VmError> {
        let mut chunk = [0; 256];
        while let Some(bytes) = available(control, &mut chunk) {
            if bytes.is_empty() {
                return Err(VmError::Ended { how: String::new(), console: self.last_lines() });
            }
            self.said.extend_from_slice(bytes);
        }
        while let Some(end) = self.said.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            match String::from_utf8_lossy(&line).trim().split_once(' ') {
                None => self.ready = Some(Instant::now()),
                Some(("exit", code)) if let Ok(code) = code.parse() => return Ok(Some(code)),
                Some((_, message)) => return Err(VmError::Guest { message: message.to_owned(), console: self.last_lines() }),
            }
        }
        Ok(None)
    }
}

/// Hands over what has come so far. The end of a port is the end of QEMU, which the control port tells.
fn deliver(port: &UnixStream, to: &mut dyn Write) -> Result<(), VmError> {
    let mut chunk = [0; CHUNK];
    let mut any = false;
    while let Some(bytes) = available(port, &mut chunk).filter(|bytes| !bytes.is_empty()) {
        to.write_all(bytes).map_err(VmError::Output)?;
        any = true;
    }
    if any { to.flush().map_err(VmError::Output) } else { Ok(()) }
}

/// What is there to read: `None` when nothing is yet, nothing at the end.
fn available<'c>(mut port: &UnixStream, chunk: &'c mut [u8]) -> Option<&'c [u8]> {
    match port.read(chunk) {
        Ok(count) => Some(&chunk[..count]),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        Err(_) => Some(&[]),
    }
}

/// The way of the standard input, one chunk at a time.
struct Input<'s> {
    from: Option<BorrowedFd<'s>>,
    to: Option<UnixStream>,
    pending: Vec<u8>,
}

impl<'s> Input<'s> {
    fn new(ports: &Ports, from: Option<BorrowedFd<'s>>) -> Self {
        let to = ports.stdin.as_ref().and_then(|port| port.try_clone().ok());
        Self { from: from.filter(|_| to.is_some()), to, pending: Vec::new() }
    }

    fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.to {
            Some(to) if !self.pending.is_empty() => Some((to.as_fd(), PollFlags::OUT)),
            _ => self.from.map(|from| (from, PollFlags::IN)),
        }
    }

    fn forward(&mut self) {
        let Some(mut to) = self.to.as_ref() else { return };
        if self.pending.is_empty()
            && let Some(from) = self.from
        {
            // The caller's descriptor may block.
            let mut polled = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
            if !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1..)) {
                return;
            }
            let mut chunk = [0; CHUNK];
            match rustix::io::read(from, &mut chunk) {
                Ok(count @ 1..) => self.pending.extend_from_slice(&chunk[..count]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return,
                // An error is an end: the guest has no other word for it. The other half stays open, or QEMU would drop what is in between.
                Ok(0) | Err(_) => {
                    let _ = to.shutdown(Shutdown::Write);
                    self.from = None;
                    return;
                }
            }
        }
        if !self.pending.is_empty() {
            match to.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // QEMU is gone: the control port tells.
                Err(_) => (self.from, self.pending) = (None, Vec::new()),
            }
        }
    }
}
