//! The guest's disk: an ext4 image with a directory tree on it. It is a file without a name, so nothing is left behind, whatever happens.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tree::{BLOCK, Tree};
use crate::install::{self, InstallError};
use crate::rig::last_lines;

/// Room for what the command writes, in bytes. The image has holes there.
const FREE: u64 = 1 << 30;
/// Room for files that the command makes.
const FREE_INODES: u64 = 8192;
/// The size of an inode, in bytes.
const INODE: u64 = 256;

/// A disk that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// mke2fs is missing.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The image cannot be made.
    #[error("the guest's disk cannot be made in {path}: {source}; set TMPDIR to a directory with more room")]
    File {
        /// the directory of temporary files
        path: PathBuf,
        /// what the system said
        source: io::Error,
    },
    /// mke2fs failed.
    #[error(
        "the guest's disk cannot be made: mke2fs -d failed ({status}): {output}\nif it has no room, set TMPDIR to a directory with more"
    )]
    Mke2fs {
        /// how it ended
        status: String,
        /// what it said
        output: String,
    },
}

/// A file without a name, with a path as long as it is open here.
pub(crate) struct Unnamed(File);

impl Unnamed {
    pub(crate) fn new() -> Result<Self, DiskError> {
        tempfile::tempfile().map(Self).map_err(|source| DiskError::File { path: std::env::temp_dir(), source })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// A path for other programs of this user.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

/// An ext4 image of `tree`.
pub(crate) fn image(tree: &Tree) -> Result<Unnamed, DiskError> {
    let mke2fs = install::tool("mke2fs", "e2fsprogs")?;
    let image = Unnamed::new()?;
    let inodes = tree.inodes + FREE_INODES;
    // A sixteenth for the trees of extents and the group descriptors.
    let len = (tree.bytes + tree.bytes / 16 + inodes * INODE + FREE).next_multiple_of(1 << 20);
    image.file().set_len(len).map_err(|source| DiskError::File { path: std::env::temp_dir(), source })?;
    let output = command(&mke2fs, tree.root(), inodes, &image.path()).output();
    let output = output.map_err(|error| DiskError::Mke2fs { status: error.to_string(), output: String::new() })?;
    match output.status.success() {
        true => Ok(image),
        false => Err(DiskError::Mke2fs { status: output.status.to_string(), output: last_lines(&output.stderr, 4) }),
    }
}

/// No journal: nobody wants the disk after a crash, and its thread would be counted under `icount`.
fn command(mke2fs: &Path, tree: &Path, inodes: u64, image: &Path) -> Command {
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-b"]).arg(BLOCK.to_string());
    command.arg("-I").arg(INODE.to_string()).arg("-N").arg(inodes.to_string());
    command.args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "-d"]).arg(tree).arg(image);
    command.stdin(Stdio::null());
    command
}
