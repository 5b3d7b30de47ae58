//! What is sent: a regular file, or a stream.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use super::identity::Identity;

/// An opened source.
#[derive(Debug)]
pub enum Source {
    /// Has pages in the page cache, which a device can be given.
    File(RegularFile),
    /// Standard input, a pipe, a terminal, a socket: its bytes have to be copied.
    Stream(Stream),
}

/// Why something cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It could not be opened.
    #[error("{}: {error}{}", path.display(), remedy(error))]
    Open {
        /// what was named
        path: PathBuf,
        /// what the system said
        error: io::Error,
    },
    /// A directory.
    #[error("{} is a directory; name a file (an archive goes through a pipe: tar -c {} | pagewire send - ...)", .0.display(), .0.display())]
    Directory(PathBuf),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (you need the right to read it)",
        _ => "",
    }
}

impl Source {
    /// Opens `path` for reading; `-` is standard input.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let path = path.as_ref();
        let failed = |error| SourceError::Open { path: path.to_owned(), error };
        let (file, name) = if path == Path::new("-") {
            (File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?), "standard input".into())
        } else {
            (File::open(path).map_err(failed)?, path.display().to_string())
        };
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(SourceError::Directory(path.to_owned()));
        }
        match RegularFile::new(file, name).map_err(failed)? {
            Ok(file) => Ok(Self::File(file)),
            Err((file, name)) => Stream::new(file, name).map(Self::Stream).map_err(failed),
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        match self {
            Self::File(file) => &file.name,
            Self::Stream(stream) => &stream.name,
        }
    }
}

/// Files of the kernel's own file systems are made up as they are read: their size is 0 or untrue, and they have no pages.
fn is_made_up(file: &File, metadata: &Metadata) -> io::Result<bool> {
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const DEBUGFS: u64 = 0x6462_6720;
    const TRACEFS: u64 = 0x7472_6163;
    const CGROUP2: u64 = 0x6367_7270;
    let kind = rustix::fs::fstatfs(file)?.f_type as u64;
    Ok([PROC, SYSFS, DEBUGFS, TRACEFS, CGROUP2].contains(&kind) || metadata.len() == 0 && file.read_at(&mut [0], 0)? > 0)
}

/// A regular file, open for reading.
#[derive(Debug)]
pub struct RegularFile {
    file: File,
    name: String,
    identity: Identity,
    start: u64,
}

impl RegularFile {
    /// An open file under a name for messages, both given back when it has no pages in the page cache: a pipe, a device, a directory, a file that
    /// the kernel makes up.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(file: File, name: String) -> io::Result<Result<Self, (File, String)>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() || is_made_up(&file, &metadata)? {
            return Ok(Err((file, name)));
        }
        // Standard input may have been read from before; what is left of it is sent.
        let start = (&file).stream_position()?;
        Ok(Ok(Self { identity: Identity::from(&metadata), file, name, start }))
    }

    /// Where it stood when it was opened: 0, but for a standard input that was read from before.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Which file and version was opened.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.identity.size()
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads exactly `bytes.len()` bytes at `offset`, by `pread`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file became shorter.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Takes the file for what it is now: it may have changed before a lease was had.
    ///
    /// # Errors
    /// What fstat said.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.identity = Identity::of(&self.file)?;
        Ok(())
    }

    /// Whether the file has changed since it was opened or [refreshed](Self::refresh), as far as its size and times tell.
    ///
    /// # Errors
    /// What fstat said.
    pub fn changed(&self) -> io::Result<bool> {
        Ok(Identity::of(&self.file)? != self.identity)
    }
}

impl AsFd for RegularFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How much a stream's reader reads at once, in bytes, and how many such blocks it is ahead.
const BLOCK: usize = 64 << 10;
const AHEAD: usize = 16;

/// A source that can only be read once, front to back. A thread of its own reads ahead, so that a slow writer at the other end of a pipe does
/// not keep the NIC from being served.
#[derive(Debug)]
pub struct Stream {
    name: String,
    blocks: Receiver<io::Result<Vec<u8>>>,
    /// Blocks that have been used go back to be filled again.
    used: Sender<Vec<u8>>,
    block: Vec<u8>,
    taken: usize,
}

/// What a stream has at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Available {
    /// So many bytes were copied.
    Bytes(usize),
    /// Nothing now.
    NotYet,
    /// Nothing any more.
    End,
}

impl Stream {
    fn new(mut file: File, name: String) -> io::Result<Self> {
        let (sender, blocks) = bounded::<io::Result<Vec<u8>>>(AHEAD);
        let (used, free) = bounded::<Vec<u8>>(AHEAD + 2);
        std::thread::Builder::new().name("stream-reader".into()).spawn(move || {
            loop {
                let mut block = free.try_recv().unwrap_or_default();
                block.resize(BLOCK, 0);
                let read = match file.read(&mut block) {
                    Ok(0) => return,
                    Ok(len) => {
                        block.truncate(len);
                        Ok(block)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                if sender.send(read).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { name, blocks, used, block: Vec::new(), taken: 0 })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Copies what is there into `bytes`, without waiting.
    ///
    /// # Errors
    /// What reading the stream gave.
    pub fn take(&mut self, bytes: &mut [u8]) -> io::Result<Available> {
        if self.taken == self.block.len() {
            // The reader may be gone already, and needs no blocks then.
            let _ = self.used.try_send(std::mem::take(&mut self.block));
            self.taken = 0;
            match self.blocks.try_recv() {
                Ok(block) => self.block = block?,
                Err(TryRecvError::Empty) => return Ok(Available::NotYet),
                Err(TryRecvError::Disconnected) => return Ok(Available::End),
            }
        }
        let len = bytes.len().min(self.block.len() - self.taken);
        bytes[..len].copy_from_slice(&self.block[self.taken..self.taken + len]);
        self.taken += len;
        Ok(Available::Bytes(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_cannot_be_sent_says_why() {
        let missing = Source::open("/nonexistent/file").unwrap_err().to_string();
        assert!(missing.starts_with("/nonexistent/file: No such file"), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let error = Source::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }

    #[test]
    fn a_change_of_the_file_is_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"first").unwrap();
        let Source::File(source) = Source::open(file.path()).unwrap() else { panic!("a regular file") };
        assert!(!source.changed().unwrap());
        file.write_all(b"more").unwrap();
        assert!(source.changed().unwrap());
        let mut bytes = [0; 5];
        source.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first");
    }

    #[test]
    fn a_file_that_the_kernel_makes_up_is_a_stream() {
        for path in ["/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            assert!(matches!(Source::open(path).unwrap(), Source::Stream(_)), "{path}");
        }
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Source::open(empty.path()).unwrap(), Source::File(_)), "an empty file is one");
    }

    #[test]
    fn a_pipe_is_a_stream_and_comes_out_whole() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let sent = content.clone();
        let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut stream = Stream::new(File::from(std::os::fd::OwnedFd::from(reader)), "pipe".into()).unwrap();
        let (mut received, mut block) = (Vec::new(), [0; 1472]);
        loop {
            match stream.take(&mut block).unwrap() {
                Available::Bytes(len) => received.extend_from_slice(&block[..len]),
                Available::NotYet => std::thread::yield_now(),
                Available::End => break,
            }
        }
        thread.join().unwrap();
        assert!(received == content);
    }
}
