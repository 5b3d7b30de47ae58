//! The client of QEMU's qtest protocol: one line for a register access, one line back.
//!
//! Reference: QEMU's softmmu/qtest.c. Lines `IRQ raise N` and `IRQ lower N` come whenever the intercepted interrupt controller's input N
//! changes, also before a reply. QEMU aborts on a malformed command, so only this file writes them.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hal::registers::Width;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::RecvFlags;

use super::timeout;

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A physical address.
    Memory(u64),
    /// An I/O port.
    Port(u16),
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QtestError {
    /// The socket is closed or broken: QEMU is gone or going.
    #[error("the qtest socket is closed ({0})")]
    Closed(io::Error),
    /// No reply in time. The next reply could be this command's, so the connection is of no use any more.
    #[error("QEMU has not answered `{0}` for {seconds} s", seconds = timeout::QEMU.as_secs())]
    Silent(String),
    /// QEMU refused the command.
    #[error("QEMU answered `{command}` with `{reply}`")]
    Refused {
        /// what was asked
        command: String,
        /// what came back
        reply: String,
    },
}

/// The connection. Whoever holds it (under the machine's lock) has the only command under way.
pub(crate) struct Qtest {
    stream: UnixStream,
    /// What has arrived and is not yet a whole line.
    received: Vec<u8>,
    /// The command being sent; kept for its allocation.
    command: String,
    /// A command went unanswered.
    silent: Option<String>,
    line: InterruptLine,
}

impl Qtest {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout::QEMU))?;
        stream.set_write_timeout(Some(timeout::QEMU))?;
        let line = InterruptLine { levels: 0, number: None, raised: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? };
        Ok(Self { stream, received: Vec::new(), command: String::new(), silent: None, line })
    }

    /// The value at `place`, zero-extended.
    pub(crate) fn read(&mut self, place: Place, width: Width) -> Result<u64, QtestError> {
        let reply = match place {
            Place::Memory(address) => self.execute(format_args!("read{} {address:#x}", letter(width))),
            Place::Port(port) => self.execute(format_args!("in{} {port:#x}", letter(width))),
        }?;
        let value = reply.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        value.ok_or_else(|| QtestError::Refused { command: self.command.trim_end().to_owned(), reply: format!("OK {reply}") })
    }

    /// Writes the low `width` of `value` at `place`; done when this returns.
    pub(crate) fn write(&mut self, place: Place, width: Width, value: u64) -> Result<(), QtestError> {
        match place {
            Place::Memory(address) => self.execute(format_args!("write{} {address:#x} {value:#x}", letter(width))),
            Place::Port(port) => self.execute(format_args!("out{} {port:#x} {value:#x}", letter(width))),
        }
        .map(drop)
    }

    /// Has the inputs of the interrupt controller reported instead of delivered.
    pub(crate) fn intercept_interrupts(&mut self) -> Result<(), QtestError> {
        self.execute(format_args!("irq_intercept_in ioapic")).map(drop)
    }

    /// A descriptor that is readable while input `number` of the interrupt controller is high, as far as lines have been [taken
    /// in](Self::take_in).
    pub(crate) fn watch_interrupt(&mut self, number: u32) -> io::Result<OwnedFd> {
        self.line.watch(number)?;
        self.line.raised.try_clone()
    }

    /// Whether the watched input is high.
    pub(crate) fn interrupt_is_high(&self) -> bool {
        self.line.is_high()
    }

    /// A second descriptor of the socket, to wait on without the lock.
    pub(crate) fn socket(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Takes in what has arrived, without waiting.
    pub(crate) fn take_in(&mut self) -> Result<(), QtestError> {
        let mut chunk = [0; 1024];
        loop {
            match rustix::net::recv(&self.stream, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(QtestError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok((count, _)) => self.received.extend_from_slice(&chunk[..count]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(QtestError::Closed(error.into())),
            }
        }
        // No command is under way, so every whole line is an interrupt's.
        while let Some(line) = self.whole_line() {
            self.line.follow(&line);
        }
        Ok(())
    }

    /// Sends a command and waits for its reply: what follows `OK`.
    fn execute(&mut self, command: fmt::Arguments<'_>) -> Result<String, QtestError> {
        if let Some(unanswered) = &self.silent {
            return Err(QtestError::Silent(unanswered.clone()));
        }
        self.command.clear();
        // Writing into a String cannot fail.
        let _ = writeln!(self.command, "{command}");
        let deadline = Instant::now() + timeout::QEMU;
        if let Err(error) = self.stream.write_all(self.command.as_bytes()) {
            return Err(self.broken(error));
        }
        loop {
            while let Some(line) = self.whole_line() {
                if self.line.follow(&line) {
                    continue;
                }
                return match line.strip_prefix("OK") {
                    Some(value) => Ok(value.trim().to_owned()),
                    None => Err(QtestError::Refused { command: self.command.trim_end().to_owned(), reply: line }),
                };
            }
            if Instant::now() >= deadline {
                return Err(self.broken(io::ErrorKind::TimedOut.into()));
            }
            let mut chunk = [0; 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QtestError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&mut self, error: io::Error) -> QtestError {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            let command = self.command.trim_end().to_owned();
            self.silent = Some(command.clone());
            QtestError::Silent(command)
        } else {
            QtestError::Closed(error)
        }
    }

    fn whole_line(&mut self) -> Option<String> {
        let end = self.received.iter().position(|&byte| byte == b'\n')?;
        let line = self.received.drain(..=end).collect::<Vec<u8>>();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }
}

/// The levels of the interrupt controller's inputs, and an eventfd that is readable while the watched one is high.
struct InterruptLine {
    levels: u64,
    number: Option<u32>,
    raised: OwnedFd,
}

impl InterruptLine {
    /// Follows an `IRQ` line; `false` when it is none. Inputs beyond 63 do not exist (the I/O APIC has 24).
    fn follow(&mut self, line: &str) -> bool {
        let Some(change) = line.strip_prefix("IRQ ") else { return false };
        let before = self.is_high();
        if let Some((direction, number)) = change.split_once(' ')
            && let Ok(number @ 0..64) = number.trim().parse::<u32>()
        {
            match direction {
                "raise" => self.levels |= 1 << number,
                "lower" => self.levels &= !(1 << number),
                _ => {}
            }
        }
        self.signal(before);
        true
    }

    fn watch(&mut self, number: u32) -> io::Result<()> {
        let before = self.is_high();
        if number >= 64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.number = Some(number);
        self.signal(before);
        Ok(())
    }

    fn is_high(&self) -> bool {
        self.number.is_some_and(|number| self.levels & 1 << number != 0)
    }

    fn signal(&self, before: bool) {
        // The count is 0 or 1, so neither can block or fail.
        match (before, self.is_high()) {
            (false, true) => drop(rustix::io::write(&self.raised, &1u64.to_ne_bytes())),
            (true, false) => drop(rustix::io::read(&self.raised, &mut [0; 8])),
            _ => {}
        }
    }
}

fn letter(width: Width) -> char {
    match width {
        Width::Byte => 'b',
        Width::Word => 'w',
        Width::Double => 'l',
        Width::Quad => 'q',
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// A client, and a thread that answers its commands in order.
    fn with_answers(answers: &'static [&'static str]) -> (Qtest, std::thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut commands = BufReader::new(theirs.try_clone().unwrap()).lines();
            let mut seen = Vec::new();
            for answer in answers {
                seen.push(commands.next().unwrap().unwrap());
                (&theirs).write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        (Qtest::new(ours).unwrap(), peer)
    }

    #[test]
    fn accesses_are_lines_and_replies_are_parsed() {
        let (mut qtest, peer) = with_answers(&["OK 0x00000000cafe0001\n", "OK\n", "OK 0xff\n"]);
        assert_eq!(qtest.read(Place::Memory(0xe000_0008), Width::Double).unwrap(), 0xcafe_0001);
        qtest.write(Place::Port(0xcf8), Width::Double, 0x8000_2000).unwrap();
        assert_eq!(qtest.read(Place::Port(0x80), Width::Byte).unwrap(), 0xff);
        assert_eq!(peer.join().unwrap(), ["readl 0xe0000008", "outl 0xcf8 0x80002000", "inb 0x80"]);
    }

    #[test]
    fn interrupt_lines_before_a_reply_are_followed() {
        let (mut qtest, peer) = with_answers(&["IRQ raise 0\nIRQ raise 20\nOK 0x1\n", "IRQ lower 20\nIRQ lower 0\nOK 0x1\n"]);
        let raised = qtest.watch_interrupt(20).unwrap();
        let count = |raised: &OwnedFd| rustix::io::read(raised, &mut [0; 8]).is_ok();
        qtest.read(Place::Port(0x80), Width::Byte).unwrap();
        assert!(qtest.interrupt_is_high());
        qtest.read(Place::Port(0x80), Width::Byte).unwrap();
        assert!(!qtest.interrupt_is_high() && !count(&raised));
        peer.join().unwrap();
    }

    #[test]
    fn a_level_that_was_high_before_it_is_watched_counts() {
        let (mut qtest, peer) = with_answers(&["IRQ raise 20\nOK\n"]);
        qtest.intercept_interrupts().unwrap();
        let raised = qtest.watch_interrupt(20).unwrap();
        assert!(qtest.interrupt_is_high() && rustix::io::read(&raised, &mut [0; 8]).is_ok());
        assert_eq!(peer.join().unwrap(), ["irq_intercept_in ioapic"]);
    }

    #[test]
    fn a_refusal_names_command_and_reply() {
        let (mut qtest, _peer) = with_answers(&["FAIL Unknown irq\n"]);
        let error = qtest.intercept_interrupts().unwrap_err().to_string();
        assert_eq!(error, "QEMU answered `irq_intercept_in ioapic` with `FAIL Unknown irq`");
    }

    #[test]
    fn a_closed_socket_is_told_apart_from_a_refusal() {
        let (mut qtest, peer) = with_answers(&[]);
        peer.join().unwrap();
        assert!(matches!(qtest.read(Place::Port(0x80), Width::Byte), Err(QtestError::Closed(_))));
        assert!(matches!(qtest.take_in(), Err(QtestError::Closed(_))));
    }
}
