//! Counting instructions with valgrind's callgrind: the same figures on every machine.
//!
//! A benchmark runs itself as a child, `--child CASE SIZE`. Only what runs inside [`measured`] counts, and of that not what a model does when one
//! of its registers is written.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The case and the size, in a child.
pub fn child(arguments: &[String]) -> Option<(&str, usize)> {
    match arguments {
        [child, case, size] if child == "--child" => Some((case, size.parse().expect("a number"))),
        _ => None,
    }
}

/// Where valgrind is.
pub fn valgrind() -> PathBuf {
    hw_sim::install::tool("valgrind", "valgrind").unwrap_or_else(|error| panic!("{error}"))
}

/// Instructions inside [`measured`] in a child of this program.
pub fn count(valgrind: &Path, case: &str, size: usize) -> u64 {
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg("--toggle-collect=*e1000::device::Io*write*")
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--child", case, &size.to_string()])
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case} with {size}: {text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1)).and_then(|figure| figure.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("valgrind did not count: {text}"))
}

/// What is counted: nothing is inlined into it or it into anything, so that it has a symbol.
#[inline(never)]
pub fn measured(work: &mut dyn FnMut()) {
    work();
}
