//! Directories and files of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A directory that is removed with the value.
///
/// # Panics
/// When it cannot be made.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("pagewire-e2e-").tempdir().expect("a temporary directory")
}

/// Bytes that look random, always the same for a `seed`.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A file of `len` bytes in `directory`, and what is in it. It is closed, since a file that is open for writing has no lease.
///
/// # Panics
/// When it cannot be written.
pub fn file(directory: &Path, len: usize) -> (PathBuf, Vec<u8>) {
    let (path, content) = (directory.join(format!("{len}.bin")), bytes(len, len as u64 + 1));
    fs::write(&path, &content).expect("a file in the temporary directory");
    (path, content)
}

/// The SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// That two contents are the same.
///
/// # Panics
/// When they are not; the message says where they begin to differ instead of showing megabytes.
pub fn assert_same(received: &[u8], sent: &[u8]) {
    if received != sent {
        let at = received.iter().zip(sent).take_while(|(one, other)| one == other).count();
        panic!("{} bytes arrived and {} were sent; they differ from byte {at} on", received.len(), sent.len());
    }
}
