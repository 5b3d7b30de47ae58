//! What a program of this machine needs in order to run in the guest: its shared libraries, and a script's interpreter.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install;

/// A program that cannot run in the guest.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such program.
    #[error("{0:?} is neither a program on this machine nor one of busybox: name the file, or one of PATH")]
    NotFound(std::ffi::OsString),
    /// The program cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// the file
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// Its libraries cannot be found out.
    #[error("the shared libraries of {path} cannot be listed by ldd: {reason}; link it statically, or install the package libc-bin")]
    Libraries {
        /// the program
        path: PathBuf,
        /// what went wrong
        reason: String,
    },
    /// A library is missing on this machine.
    #[error("{path} needs {library}, which is not on this machine either: set LD_LIBRARY_PATH to its directory")]
    LibraryMissing {
        /// the program
        path: PathBuf,
        /// the library
        library: String,
    },
}

/// The file of the command `name` on this machine: a path relative to `directory`, or a name to be looked for in PATH.
pub(crate) fn locate(name: &OsStr, directory: &Path) -> Result<PathBuf, ProgramError> {
    let path = match name.as_bytes().contains(&b'/') {
        true => Some(directory.join(name)).filter(|path| path.is_file()),
        false => name.to_str().and_then(install::find),
    };
    // PATH may have relative directories.
    path.map(|path| directory.join(path)).ok_or_else(|| ProgramError::NotFound(name.to_owned()))
}

/// The files that `path` needs beside itself; none for what is no program.
pub(crate) fn needs(path: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut start));
    read.map_err(|source| ProgramError::Unreadable { path: path.to_owned(), source })?;
    if start.starts_with(b"\x7fELF") {
        return libraries(path);
    }
    match interpreter(&start) {
        // The guest has its own; one that this machine lacks is missing there too, and the shell says so.
        Some(interpreter) if interpreter != Path::new("/bin/sh") && interpreter.is_file() => {
            let mut files = libraries(&interpreter)?;
            files.push(interpreter);
            Ok(files)
        }
        _ => Ok(Vec::new()),
    }
}

/// The interpreter in a script's first line.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let word = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word))).filter(|path| path.is_absolute())
}

/// The shared libraries of the program or library `path`, with the dynamic loader; none when it is static.
pub(crate) fn libraries(path: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let failed = |reason: String| ProgramError::Libraries { path: path.to_owned(), reason };
    let output =
        Command::new("ldd").arg(path).env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        // Said of static programs, and of programs for other machines, which the guest refuses then.
        return if reason.contains("not a dynamic executable") { Ok(Vec::new()) } else { Err(failed(reason.trim().to_owned())) };
    }
    parse(&text).map_err(|library| ProgramError::LibraryMissing { path: path.to_owned(), library })
}

/// The files in ldd's output, or the name of a library that is missing.
fn parse(listed: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for line in listed.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").map_or((line, line), |(name, place)| (name, place));
        if place == "not found" {
            return Err(name.to_owned());
        }
        let place = place.rsplit_once(" (").map_or(place, |(place, _)| place);
        if place.starts_with('/') {
            files.push(PathBuf::from(place));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_listed_and_the_kernels_own_is_not() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld-linux.so.2 (0x00007f)\n";
        assert_eq!(parse(listed).unwrap(), ["/lib/x/libc.so.6", "/lib64/ld-linux.so.2"].map(PathBuf::from));
        assert_eq!(parse("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(parse("\tlibq.so.1 => not found\n").unwrap_err(), "libq.so.1");
    }

    #[test]
    fn a_scripts_interpreter_is_its_first_word() {
        assert_eq!(interpreter(b"#! /usr/bin/env python3\nx"), Some("/usr/bin/env".into()));
        assert_eq!(interpreter(b"#!/bin/bash"), Some("/bin/bash".into()));
        assert_eq!(interpreter(b"echo"), None);
        assert_eq!(interpreter(b"#!\n"), None);
    }

    #[test]
    fn a_program_that_is_nowhere_is_told() {
        let error = locate(OsStr::new("no-such-program"), Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("\"no-such-program\" is neither"), "{error}");
        assert!(locate(OsStr::new("./none"), Path::new("/")).is_err());
    }
}
