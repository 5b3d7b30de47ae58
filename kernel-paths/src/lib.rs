//! The kernel's ways to send a file over a socket: with copies, without, and with the NIC reading the page cache. Each gives an account of the system
//! calls it made and of the bytes that these say were copied.
//!
//! Unsafe code is here because three of the ways have no safe interface: a socket is handed memory that another process may write (a shared mapping
//! of the file), and memory that the kernel goes on to read after the call (`MSG_ZEROCOPY`, `SEND_ZC`).

mod mapping;
mod ring;
mod zerocopy;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::SendFlags;
use rustix::pipe::SpliceFlags;

use self::mapping::Mapping;
use self::ring::Ring;
use self::zerocopy::ZeroCopy;

/// How much one call sends over TCP, in bytes.
pub const CHUNK: usize = 64 << 10;

/// A way to send a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `pread` into a buffer, `send` out of it.
    ReadWrite,
    /// `send` out of a shared mapping of the file.
    MmapWrite,
    /// `sendfile`.
    Sendfile,
    /// `splice` into a pipe, `splice` out of it.
    Splice,
    /// `send` with `MSG_ZEROCOPY` out of a shared mapping.
    ZeroCopy,
    /// io_uring's `SEND_ZC` out of a shared mapping.
    SendZc,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::ReadWrite, Self::MmapWrite, Self::Sendfile, Self::Splice, Self::ZeroCopy, Self::SendZc];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "read+write",
            Self::MmapWrite => "mmap+write",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::ZeroCopy => "MSG_ZEROCOPY",
            Self::SendZc => "io_uring SEND_ZC",
        }
    }
}

/// What sending took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Bytes of the file that the socket took.
    pub bytes: u64,
    /// System calls made for them, counted where they are made.
    pub calls: u64,
    /// Bytes that the CPU copied: those that calls which copy returned, and those of which a completion said so. `None` where the kernel does not
    /// tell (`SEND_ZC` before Linux 6.2).
    pub copied: Option<u64>,
}

/// A file ready to be sent one way: what is set up once is.
pub struct Sender<'f> {
    file: &'f File,
    len: u64,
    chunk: usize,
    with: With,
}

enum With {
    Buffer(Vec<u8>),
    Mapping(Mapping),
    Nothing,
    Pipe(OwnedFd, OwnedFd),
    ZeroCopy(Mapping),
    // The ring first: it must not outlive what it reads from.
    Ring(Box<Ring>, Mapping),
}

impl<'f> Sender<'f> {
    /// Prepares to send the first `len` bytes of a file, at most `chunk` with a call.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(way: Way, file: &'f File, len: u64, chunk: usize) -> io::Result<Self> {
        let map = || Mapping::new(file, len as usize);
        let with = match way {
            Way::ReadWrite => With::Buffer(vec![0; chunk]),
            Way::MmapWrite => With::Mapping(map()?),
            Way::Sendfile => With::Nothing,
            Way::Splice => {
                let (reader, writer) = rustix::pipe::pipe()?;
                rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20)?;
                With::Pipe(reader, writer)
            }
            Way::ZeroCopy => With::ZeroCopy(map()?),
            Way::SendZc => With::Ring(Box::new(Ring::new()?), map()?),
        };
        Ok(Self { file, len, chunk, with })
    }

    /// Sends all of it once over a connected, blocking socket, and waits until the kernel no longer reads from the file's mapping.
    ///
    /// # Errors
    /// What the socket says; a file that has become shorter.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<Account> {
        let Self { file, len, chunk, with } = self;
        let mut account = Account { bytes: 0, calls: 0, copied: Some(0) };
        let copied = |account: &mut Account, bytes: usize| account.copied = account.copied.map(|copied| copied + bytes as u64);
        match with {
            With::Buffer(buffer) => {
                while account.bytes < *len {
                    let want = (*chunk).min((*len - account.bytes) as usize);
                    let got = not_the_end(rustix::io::pread(*file, &mut buffer[..want], account.bytes)?)?;
                    account.calls += 1;
                    copied(&mut account, got);
                    let mut left = &buffer[..got];
                    while !left.is_empty() {
                        let sent = rustix::net::send(socket, left, SendFlags::empty())?;
                        account.calls += 1;
                        copied(&mut account, sent);
                        account.bytes += sent as u64;
                        left = &left[sent..];
                    }
                }
            }
            With::Mapping(mapping) => {
                while account.bytes < *len {
                    let sent = mapping.send(socket, account.bytes as usize, *chunk, 0)?;
                    account.calls += 1;
                    copied(&mut account, sent);
                    account.bytes += sent as u64;
                }
            }
            With::Nothing => {
                while account.bytes < *len {
                    let mut offset = account.bytes;
                    let want = (*chunk).min((*len - offset) as usize);
                    account.bytes += not_the_end(rustix::fs::sendfile(socket, *file, Some(&mut offset), want)?)? as u64;
                    account.calls += 1;
                }
            }
            With::Pipe(reader, writer) => {
                while account.bytes < *len {
                    let mut offset = account.bytes;
                    let want = (*chunk).min((*len - offset) as usize);
                    let flags = SpliceFlags::MOVE;
                    let mut inside = not_the_end(rustix::pipe::splice(*file, Some(&mut offset), writer.as_fd(), None, want, flags)?)?;
                    account.calls += 1;
                    while inside > 0 {
                        let sent = rustix::pipe::splice(reader.as_fd(), None, socket, None, inside, flags | SpliceFlags::MORE)?;
                        account.calls += 1;
                        inside -= not_the_end(sent)?;
                        account.bytes += sent as u64;
                    }
                }
            }
            With::ZeroCopy(mapping) => ZeroCopy::new(socket)?.send_all(mapping, *len, *chunk, &mut account)?,
            With::Ring(ring, mapping) => ring.send_all(socket, mapping, *len, *chunk, &mut account)?,
        }
        Ok(account)
    }
}

/// A call that moved nothing would move nothing forever.
fn not_the_end(moved: usize) -> io::Result<usize> {
    if moved > 0 { Ok(moved) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn every_way_sends_the_whole_file_and_counts_its_calls_and_copies() {
        let len = 3 * CHUNK + 1234;
        let content: Vec<u8> = (0..len).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for way in Way::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let receiver = std::thread::spawn(move || {
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                received
            });
            let mut sender = match Sender::new(way, &file, len as u64, CHUNK) {
                Ok(sender) => sender,
                // Containers often forbid io_uring altogether; the guest of `pagewire compare` has it.
                Err(error)
                    if way == Way::SendZc && error.raw_os_error().is_some_and(|code| [libc::EPERM, libc::ENOSYS].contains(&code)) =>
                {
                    println!("NOT TESTED: {} is forbidden here: {error}", way.name());
                    continue;
                }
                Err(error) => panic!("{}: {error}", way.name()),
            };
            let account = sender.send(stream.as_fd()).unwrap_or_else(|error| panic!("{}: {error}", way.name()));
            drop(stream);
            assert!(receiver.join().unwrap() == content, "{}", way.name());
            assert_eq!(account.bytes, len as u64, "{}", way.name());
            assert!(account.calls >= 4, "{account:?}");
            let expected = match way {
                Way::ReadWrite => Some(2 * len as u64),
                Way::MmapWrite => Some(len as u64),
                Way::Sendfile | Way::Splice => Some(0),
                // On loop-back the kernel copies after all, and says so.
                Way::ZeroCopy => Some(len as u64),
                Way::SendZc => account.copied.filter(|copied| *copied == len as u64),
            };
            assert_eq!(account.copied, expected, "{}", way.name());
        }
    }
}
