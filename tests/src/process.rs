//! Processes, by their numbers. Only what a test has started is ever signalled.

use std::fs;

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// The processes that `pid` has started, and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|child| status(*child).is_some_and(|(_, state, parent)| parent == pid && state != 'Z')).collect()
}

/// Its short name (at most 15 bytes); empty when it is gone.
pub fn name(pid: u32) -> String {
    status(pid).map(|(name, ..)| name).unwrap_or_default()
}

/// Whether it has ended, be it that nobody has taken notice yet.
pub fn is_gone(pid: u32) -> bool {
    status(pid).is_none_or(|(_, state, _)| state == 'Z')
}

/// Sends a signal to a process that the test has started.
///
/// # Panics
/// When that is not possible.
pub fn signal(pid: u32, signal: Signal) {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    kill_process(number, signal).unwrap_or_else(|error| panic!("process {pid} cannot be signalled: {error}"));
}

/// Name, state and parent, from /proc/PID/stat.
fn status(pid: u32) -> Option<(String, char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses, and may have some itself.
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let mut fields = text[end + 1..].split_ascii_whitespace();
    Some((text[start + 1..end].to_owned(), fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
