//! The other end of a UDP send: an ordinary socket of this host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use crate::send::Framing;

/// How a file is received.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// What the datagrams hold, as the sender was told.
    pub framing: Framing,
    /// Ends when so many bytes are there; `None`: when nothing came for [`idle`](Self::idle).
    pub size: Option<u64>,
    /// Where in the sender's file the received range begins: [`Framing::Offset`] counts from there.
    pub offset: u64,
    /// The pause after which the sender counts as done, once something has come. Default 2 s.
    pub idle: Duration,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self { framing: Framing::Raw, size: None, offset: 0, idle: Duration::from_secs(2) }
    }
}

/// What was received. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReceiveReport {
    /// Bytes of the file, each counted once.
    pub bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Ranges that did not come, as far as offsets tell; always empty with raw framing, which cannot know.
    pub gaps: Vec<Gap>,
    /// Bytes that came more than once.
    pub bytes_repeated: u64,
    /// Datagrams that were not the sender's, or too short for their framing.
    pub ignored: u64,
    /// Datagrams that the kernel dropped since the socket's buffer was full.
    pub dropped: u64,
    /// The hash of what was received, in hexadecimal: of the whole file when there are no gaps.
    pub sha256: String,
    /// From the first datagram to the last.
    pub seconds: f64,
    /// Who sent.
    pub sender: Option<SocketAddr>,
    /// `complete` (the size that was asked for), `idle` or `interrupted`.
    pub stopped: &'static str,
}

/// A range of the file that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Its first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket.
    #[error("udp://{address}: {error}{}", remedy(error))]
    Bind {
        /// where it was to listen
        address: SocketAddr,
        /// what the system said
        error: io::Error,
    },
    /// Receiving failed.
    #[error("receiving: {0}")]
    Receive(io::Error),
    /// The file.
    #[error("writing {}: {error}{}", path.display(), remedy(error))]
    Write {
        /// the file
        path: PathBuf,
        /// what the system said
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::FileTooLarge => "; an offset beyond any file: is --framing what the sender was told?",
        io::ErrorKind::AddrInUse => "; another program listens there: end it, or take another port",
        io::ErrorKind::AddrNotAvailable => "; this host does not have that address: 0.0.0.0 listens on all",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root",
        _ => "",
    }
}

/// A socket that listens, with as large a buffer as it may have.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
}

/// How long one wait for a datagram lasts, so that an interruption is seen.
const WAIT: Duration = Duration::from_millis(50);
/// The receive buffer that is asked for. The kernel gives what `net.core.rmem_max` allows, or all of it to root.
const SOCKET_BUFFER: usize = 64 << 20;

impl Receiver {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ReceiveError::Bind`].
    pub fn bind(address: SocketAddr) -> Result<Self, ReceiveError> {
        let open = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
            socket.set_recv_buffer_size(SOCKET_BUFFER)?;
            // Needs CAP_NET_ADMIN; without it the ordinary limit holds.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER);
            socket.bind(&address.into())?;
            socket.set_read_timeout(Some(WAIT))?;
            Ok(socket.into())
        };
        open().map(|socket| Self { socket }).map_err(|error| ReceiveError::Bind { address, error })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives one file from the first sender, until it is complete, the sender pauses, or `stop` is set. Writes it to `output`, or only hashes it.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive(
        &self,
        output: Option<&Path>,
        options: &ReceiveOptions,
        stop: &AtomicBool,
        mut tell: impl FnMut(u64),
    ) -> Result<ReceiveReport, ReceiveError> {
        let mut report = ReceiveReport { stopped: "idle", ..ReceiveReport::default() };
        let mut sink = Sink::create(output, options.framing)?;
        let (mut first, mut last, mut told) = (None, None::<Instant>, Instant::now());
        let mut datagram = vec![0; 65_536];
        let prefix = options.framing.prefix_len();
        loop {
            if stop.load(Ordering::Relaxed) {
                report.stopped = "interrupted";
                break;
            }
            if options.size.is_some_and(|size| report.bytes >= size) {
                report.stopped = "complete";
                break;
            }
            let (len, sender) = match self.socket.recv_from(&mut datagram) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                    if last.is_some_and(|last| last.elapsed() >= options.idle) {
                        break;
                    }
                    continue;
                }
                Err(error) => return Err(ReceiveError::Receive(error)),
            };
            if *report.sender.get_or_insert(sender) != sender {
                report.ignored += 1;
                continue;
            }
            // Whatever the sender sends shows that it is there.
            let now = Instant::now();
            last = Some(now);
            if len < prefix {
                report.ignored += 1;
                continue;
            }
            let (prefix, data) = datagram[..len].split_at(prefix);
            let offset = prefix.try_into().map_or(Some(0), |prefix| u64::from_be_bytes(prefix).checked_sub(options.offset));
            // No file has bytes beyond i64::MAX, so this is not one of the sender's.
            let Some(offset) = offset.filter(|offset| i64::try_from(offset.saturating_add(data.len() as u64)).is_ok()) else {
                report.ignored += 1;
                continue;
            };
            let first = *first.get_or_insert(now);
            report.seconds = now.duration_since(first).as_secs_f64();
            if now.duration_since(told) > 2 * WAIT {
                told = now;
                tell(report.bytes);
            }
            report.datagrams += 1;
            // What was asked for, and no more.
            let position = if prefix.is_empty() { report.bytes } else { offset };
            let room = options.size.map_or(u64::MAX, |size| size.saturating_sub(position));
            let data = &data[..usize::try_from(room).unwrap_or(usize::MAX).min(data.len())];
            let repeated = sink.write(offset, data)?;
            report.bytes += data.len() as u64 - repeated;
            report.bytes_repeated += repeated;
        }
        report.dropped = self.dropped().unwrap_or(0);
        (report.gaps, report.sha256) = sink.finish(options.size)?;
        Ok(report)
    }

    /// The `drops` column of this socket in /proc/net/udp.
    fn dropped(&self) -> Option<u64> {
        let address = self.socket.local_addr().ok()?;
        let table = if address.is_ipv4() { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
        let inode = rustix::fs::fstat(&self.socket).ok()?.st_ino.to_string();
        let table = std::fs::read_to_string(table).ok()?;
        let row =
            table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).find(|row| row.get(9) == Some(&inode.as_str()))?;
        row.last()?.parse().ok()
    }
}

/// Where the bytes go.
enum Sink {
    /// One after the other.
    Raw { path: PathBuf, output: Option<io::BufWriter<File>>, hash: Box<Sha256> },
    /// Each to its place.
    Placed { path: PathBuf, file: File, ranges: Ranges, waiting: Vec<u8>, waiting_at: u64 },
}

/// Neighbouring datagrams are written together.
const TOGETHER: usize = 1 << 20;

impl Sink {
    fn create(output: Option<&Path>, framing: Framing) -> Result<Self, ReceiveError> {
        let path = output.unwrap_or(Path::new("a temporary file")).to_owned();
        let failed = |error| ReceiveError::Write { path: path.clone(), error };
        let create = |path: &Path| File::options().read(true).write(true).create(true).truncate(true).open(path);
        match framing {
            Framing::Raw => {
                let output = match output {
                    Some(path) if path == Path::new("-") => {
                        Some(File::from(rustix::io::dup(io::stdout()).map_err(|error| failed(error.into()))?))
                    }
                    Some(path) => Some(create(path).map_err(failed)?),
                    None => None,
                };
                Ok(Self::Raw { path, output: output.map(|file| io::BufWriter::with_capacity(TOGETHER, file)), hash: Box::default() })
            }
            Framing::Offset => {
                // Bytes may come in any order, so they need a place, and are hashed in the end.
                let file = match output {
                    Some(path) => create(path).map_err(failed)?,
                    None => tempfile::tempfile().map_err(failed)?,
                };
                Ok(Self::Placed { path, file, ranges: Ranges::default(), waiting: Vec::with_capacity(TOGETHER), waiting_at: 0 })
            }
        }
    }

    /// Takes one datagram's bytes, which belong at `offset` if there are offsets. Returns how many of them were there already.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<u64, ReceiveError> {
        match self {
            Self::Raw { path, output, hash } => {
                hash.update(data);
                if let Some(output) = output {
                    output.write_all(data).map_err(|error| ReceiveError::Write { path: path.clone(), error })?;
                }
                Ok(0)
            }
            Self::Placed { ranges, waiting, waiting_at, .. } => {
                let new = ranges.insert(offset, offset.saturating_add(data.len() as u64));
                let follows = waiting_at.checked_add(waiting.len() as u64) == Some(offset);
                if !follows || waiting.len() + data.len() > TOGETHER {
                    self.flush()?;
                }
                if let Self::Placed { waiting, waiting_at, .. } = self {
                    if waiting.is_empty() {
                        *waiting_at = offset;
                    }
                    waiting.extend_from_slice(data);
                }
                Ok(data.len() as u64 - new)
            }
        }
    }

    fn flush(&mut self) -> Result<(), ReceiveError> {
        let (path, done) = match self {
            Self::Raw { path, output, .. } => (path, output.as_mut().map_or(Ok(()), Write::flush)),
            Self::Placed { path, file, waiting, waiting_at, .. } => {
                let done = file.write_all_at(waiting, *waiting_at);
                waiting.clear();
                (path, done)
            }
        };
        done.map_err(|error| ReceiveError::Write { path: path.clone(), error })
    }

    /// The gaps up to `size`, or up to the last byte that came; and the hash.
    fn finish(mut self, size: Option<u64>) -> Result<(Vec<Gap>, String), ReceiveError> {
        self.flush()?;
        match self {
            Self::Raw { hash, .. } => Ok((Vec::new(), hex(&hash.finalize()))),
            Self::Placed { path, mut file, ranges, .. } => {
                let hash = hash_of(&mut file).map_err(|error| ReceiveError::Write { path, error })?;
                Ok((ranges.gaps(size), hash))
            }
        }
    }
}

/// The SHA-256 of a whole file, in hexadecimal.
///
/// # Errors
/// What reading gave.
pub fn hash_of(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&block[..len]),
        }
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ranges of bytes that have come: start to end, apart from each other.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range. Returns how many of its bytes are new.
    fn insert(&mut self, mut start: u64, mut end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let mut new = end - start;
        // All ranges that touch it, from the last that starts no later than its end.
        while let Some((&other_start, &other_end)) = self.0.range(..=end).next_back().filter(|(_, other_end)| **other_end >= start) {
            new -= other_end.min(end).saturating_sub(other_start.max(start)).min(new);
            start = start.min(other_start);
            end = end.max(other_end);
            self.0.remove(&other_start);
        }
        self.0.insert(start, end);
        new
    }

    fn gaps(&self, size: Option<u64>) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut position = 0;
        for (&start, &end) in &self.0 {
            if start > position {
                gaps.push(Gap { offset: position, length: start - position });
            }
            position = end;
        }
        if let Some(length) = size.and_then(|size| size.checked_sub(position)).filter(|length| *length > 0) {
            gaps.push(Gap { offset: position, length });
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_count_new_bytes_once() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.insert(10, 20), 10);
        assert_eq!(ranges.insert(30, 40), 10);
        assert_eq!(ranges.insert(15, 35), 10);
        assert_eq!(ranges.0, BTreeMap::from([(10, 40)]));
        assert_eq!(ranges.insert(0, 100), 70);
        assert_eq!(ranges.insert(5, 5), 0);
        assert_eq!(ranges.insert(50, 60), 0);
    }

    #[test]
    fn gaps_lie_between_what_came_and_up_to_the_size() {
        let mut ranges = Ranges::default();
        ranges.insert(0, 10);
        ranges.insert(20, 30);
        assert_eq!(ranges.gaps(None), [Gap { offset: 10, length: 10 }]);
        assert_eq!(ranges.gaps(Some(35)), [Gap { offset: 10, length: 10 }, Gap { offset: 30, length: 5 }]);
    }

    fn receive(datagrams: &[&[u8]], options: &ReceiveOptions) -> (ReceiveReport, Vec<u8>) {
        let receiver = Receiver::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in datagrams {
            sender.send_to(datagram, receiver.address().unwrap()).unwrap();
        }
        let output = tempfile::NamedTempFile::new().unwrap();
        let report = receiver.receive(Some(output.path()), options, &AtomicBool::new(false), |_| ()).unwrap();
        (report, std::fs::read(output.path()).unwrap())
    }

    #[test]
    fn no_more_than_the_size_is_taken() {
        let options = ReceiveOptions { size: Some(7), ..Default::default() };
        let (report, content) = receive(&[b"hello", b"world"], &options);
        assert_eq!((report.bytes, content.as_slice()), (7, b"hellowo".as_slice()));
    }

    #[test]
    fn a_sender_of_another_part_is_not_waited_for_for_ever() {
        let options = ReceiveOptions { framing: Framing::Offset, offset: 1000, idle: Duration::from_millis(100), ..Default::default() };
        let (report, _) = receive(&[&[&5_u64.to_be_bytes()[..], b"early"].concat()], &options);
        assert_eq!((report.ignored, report.stopped), (1, "idle"));
    }

    #[test]
    fn datagrams_with_offsets_go_to_their_places() {
        let datagram = |offset: u64, data: &[u8]| [&offset.to_be_bytes(), data].concat();
        let datagrams = [datagram(5, b"world"), datagram(0, b"hello"), datagram(12, b"!!"), datagram(5, b"world"), b"short".to_vec()];
        let options = ReceiveOptions { framing: Framing::Offset, idle: Duration::from_millis(100), ..Default::default() };
        let (report, content) = receive(&datagrams.each_ref().map(Vec::as_slice), &options);
        assert_eq!(content, b"helloworld\0\0!!");
        assert_eq!((report.bytes, report.bytes_repeated, report.datagrams, report.ignored), (12, 5, 4, 1));
        assert_eq!(report.gaps, [Gap { offset: 10, length: 2 }]);
    }

    #[test]
    fn a_known_size_ends_the_reception() {
        let options = ReceiveOptions { size: Some(10), idle: Duration::from_secs(600), ..Default::default() };
        let (report, content) = receive(&[b"hello", b"world", b"more"], &options);
        assert_eq!((content.as_slice(), report.stopped), (b"helloworld".as_slice(), "complete"));
        assert_eq!(report.sha256, "936a185caaa266bb9cbe981e9e05cb78cd732b0b3280eb944412bb6f8f8f07af");
    }
}
