//! The client of QEMU's machine protocol (QMP): JSON objects, one a line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::timeout::{self, poll_until};

/// How many events are kept for somebody to wait for.
const EVENTS: usize = 256;

/// Why a command did not do what it says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// The socket is closed or broken: QEMU is gone or going.
    #[error("the QMP socket is closed ({0})")]
    Closed(io::Error),
    /// No reply, or no event, in time.
    #[error("QEMU has not answered {what} for {seconds} s", seconds = timeout::QEMU.as_secs())]
    Silent {
        /// what was waited for
        what: String,
    },
    /// QEMU refused; in its own words.
    #[error("{command}: {description}")]
    Refused {
        /// the command
        command: String,
        /// QMP's `desc`
        description: String,
    },
    /// Not the protocol.
    #[error("QEMU sent something that is not QMP: {0}")]
    Malformed(String),
}

/// The connection, after its greeting.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    /// The line that is arriving: a time-out in the middle must not lose its beginning.
    partial: Vec<u8>,
    events: VecDeque<Value>,
    /// Replies that are owed for commands nobody waits for any more.
    stale: u32,
    /// QEMU was silent once: nothing more is waited for, so that an end does not take one time-out after the other.
    silent: bool,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation mode.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, QmpError> {
        stream.set_write_timeout(Some(timeout::QEMU)).map_err(QmpError::Closed)?;
        let mut qmp = Self { stream: BufReader::new(stream), partial: Vec::new(), events: VecDeque::new(), stale: 0, silent: false };
        let greeting = qmp.next_message(Instant::now() + timeout::QEMU, "the QMP greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Malformed(greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes `command` and returns what it returns. Events that come meanwhile are kept.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).map_err(QmpError::Closed)?;
        self.stale += 1;
        let deadline = Instant::now() + timeout::QEMU;
        loop {
            let mut message = self.next_message(deadline, command)?;
            if message.get("event").is_some() {
                self.keep(message);
                continue;
            }
            self.stale -= 1;
            if self.stale > 0 {
                continue;
            }
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            let description = match message.pointer("/error/desc").and_then(Value::as_str) {
                Some(description) => description.to_owned(),
                None => return Err(QmpError::Malformed(message.to_string())),
            };
            return Err(QmpError::Refused { command: command.to_owned(), description });
        }
    }

    /// Waits until QEMU says that the device `id` is gone; that may have been said already.
    pub(crate) fn wait_device_deleted(&mut self, id: &str) -> Result<(), QmpError> {
        let deadline = Instant::now() + timeout::QEMU;
        loop {
            let told = |event: &Value| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id;
            if let Some(position) = self.events.iter().position(told) {
                self.events.remove(position);
                return Ok(());
            }
            let message = self.next_message(deadline, &format!("the removal of {id}"))?;
            if message.get("event").is_some() {
                self.keep(message);
            } else {
                self.stale = self.stale.saturating_sub(1);
            }
        }
    }

    /// Waits until the netdev of type `stream` is connected for QEMU too: its socket is, before QEMU's main loop has heard of it, and frames
    /// that the device sends in between are dropped. The event for it may have come before anybody listened, so the state is asked for.
    pub(crate) fn wait_stream_connected(&mut self) -> Result<(), QmpError> {
        let connected = poll_until(Instant::now() + timeout::QEMU, || {
            match self.execute("human-monitor-command", json!({ "command-line": "info network" })) {
                Ok(listing) => listing.as_str().is_some_and(|listing| listing.contains("type=stream,unix:")).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            }
        });
        connected.unwrap_or_else(|| Err(QmpError::Silent { what: "the connection of its wire".to_owned() }))
    }

    fn keep(&mut self, event: Value) {
        // Only what somebody waits for; QEMU repeats a removal for the object's path, without an id.
        if event["event"] == "DEVICE_DELETED" && event["data"].get("device").is_some() {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    fn next_message(&mut self, deadline: Instant, what: &str) -> Result<Value, QmpError> {
        let silent = || QmpError::Silent { what: what.to_owned() };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.silent || left < Duration::from_millis(1) {
                self.silent = true;
                return Err(silent());
            }
            self.stream.get_ref().set_read_timeout(Some(left)).map_err(QmpError::Closed)?;
            match self.stream.read_until(b'\n', &mut self.partial) {
                Ok(0) => return Err(QmpError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if !self.partial.ends_with(b"\n") => return Err(QmpError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {
                    let line = std::mem::take(&mut self.partial);
                    return serde_json::from_slice(&line).map_err(|_| QmpError::Malformed(String::from_utf8_lossy(&line).into_owned()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.silent = true;
                    return Err(silent());
                }
                Err(error) => return Err(QmpError::Closed(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that says `lines` at once, whatever it is asked.
    fn with_peer(lines: &str) -> (Result<Qmp, QmpError>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(lines.as_bytes()).unwrap();
        (Qmp::new(ours), theirs)
    }

    const GREETING: &str = "{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n";

    #[test]
    fn an_event_before_the_reply_is_kept() {
        let event = "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/x\"}}\n{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"dimm3\"}}\n";
        let (qmp, _peer) = with_peer(&format!("{GREETING}{event}{{\"return\": 7}}\n"));
        let mut qmp = qmp.unwrap();
        assert_eq!(qmp.execute("device_del", json!({ "id": "dimm3" })).unwrap(), 7);
        qmp.wait_device_deleted("dimm3").unwrap();
    }

    #[test]
    fn the_wire_is_asked_for_until_it_is_connected() {
        let asked = "{\"return\": \"n0: index=0,type=stream,\"}\n{\"return\": \"n0: index=0,type=stream,unix:/w\"}\n{\"return\": 7}\n";
        let (qmp, _peer) = with_peer(&format!("{GREETING}{asked}"));
        let mut qmp = qmp.unwrap();
        qmp.wait_stream_connected().unwrap();
        assert_eq!(qmp.execute("query-status", json!({})).unwrap(), 7, "the second answer was waited for, and no third");
    }

    #[test]
    fn a_refusal_carries_qemus_words() {
        let (qmp, _peer) = with_peer(&format!("{GREETING}{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no space\"}}}}\n"));
        assert_eq!(qmp.unwrap().execute("device_add", json!({})).unwrap_err().to_string(), "device_add: no space");
    }

    #[test]
    fn a_stranger_and_an_end_are_errors() {
        assert!(matches!(with_peer("{\"hello\": 1}\n").0, Err(QmpError::Malformed(_))));
        let (qmp, peer) = with_peer(GREETING);
        drop(peer);
        assert!(matches!(qmp.unwrap().execute("quit", json!({})), Err(QmpError::Closed(_))));
    }
}
