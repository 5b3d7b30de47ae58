//! What the end-to-end tests share: they run the real `pagewire` command, and stand at the other end of its wire.
//!
//! | room | holds |
//! |---|---|
//! | [`command`] | runs `pagewire`, waits for it with a bound, reads its JSON |
//! | [`content`] | temporary directories and files to send |
//! | [`receiver`] | the other end that is `pagewire receive`, and the one that is a socket of the test |
//! | [`server`] | a TCP server and clients that are sockets of the test |
//! | [`web`] | `pagewire serve`, and its clients: curl, and sockets of the test |
//! | [`peer`] | the other end that is a station on a datagram wire, with nothing of pagewire in it |
//! | [`namespace`] | the other end that is the kernel, behind a TAP interface |
//! | [`cable`] | a cable that loses, delays and reorders, between namespaces and NICs |
//! | [`capture`] | reads captures, by a parser and by tshark |
//! | [`process`] | looks at processes and signals them, by number |

#![forbid(unsafe_code)]

pub mod cable;
pub mod capture;
pub mod command;
pub mod content;
pub mod namespace;
pub mod peer;
pub mod process;
pub mod receiver;
pub mod server;
pub mod web;

use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far longer than it does, even on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `question` every few milliseconds until it has an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; the message is `what`, that which was waited for.
pub fn wait_for<T>(what: &str, question: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, question).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
}

/// As [`wait_for`], within a time of the test's choice; `None` when there is no answer until then.
pub fn wait_within<T>(time: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        // Looked at before the question, so that it is asked once more after a long interruption.
        let over = Instant::now() >= deadline;
        match question() {
            None if over => return None,
            None => std::thread::sleep(Duration::from_millis(2)),
            answer => return answer,
        }
    }
}

/// Installs (or finds) a program, as the rig does.
///
/// # Panics
/// When it is missing and cannot be installed; the message has the command to type.
pub fn tool(program: &str, debian_package: &str) -> std::path::PathBuf {
    hw_sim::install::tool(program, debian_package).unwrap_or_else(|error| panic!("this test needs {program}: {error}"))
}

/// Passes as root alone.
///
/// # Panics
/// For everyone else; the message says what root is needed for, and how to become it.
pub fn need_root(what_for: &str) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root for {what_for}: run `sudo -E env PATH=\"$PATH\" cargo test --workspace`, or in a container as root"
    );
}
