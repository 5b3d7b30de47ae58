//! What a window costs, and what the copy costs that it saves.

use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hal::{Buffer, Nic, NicError, Pool, PoolConfig};
use serde::Serialize;

use super::BenchError;
use crate::file::{CacheError, RegularFile, Source, WindowCache};
use crate::send::port::{MOST_BUFFERS, buffers_of};

/// The smallest and the largest part of a file that is measured, in bytes.
const SIZES: [u64; 2] = [4 << 10, 64 << 20];
/// The file bytes of a datagram and the datagrams of a burst: what the copying way takes at once.
const DATAGRAM: usize = 1472;
const BURST: usize = 32;

/// A size, and what its bytes cost. The times are in nanoseconds; in a guest whose clock counts instructions that is their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MapRow {
    /// How many bytes of a file, from its start.
    pub bytes: u64,
    /// To map them as windows, as a send does, for the first time.
    pub first_map_ns: u64,
    /// To map them again, after they were unmapped: the median.
    pub map_ns: u64,
    /// To unmap them: the median.
    pub unmap_ns: u64,
    /// To read them into packet buffers instead: the median.
    pub copy_ns: u64,
}

impl MapRow {
    /// What it costs to map them for a single send.
    fn once_ns(&self) -> u64 {
        self.map_ns + self.unmap_ns
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapFigures {
    /// A row a size, each twice the one before.
    pub rows: Vec<MapRow>,
    /// The smallest of the sizes from which on mapping and unmapping once costs no more than to copy; `None` when the largest still costs more.
    pub pays_from_bytes: Option<u64>,
    /// How often each was measured.
    pub rounds: usize,
}

impl MapFigures {
    fn new(rows: Vec<MapRow>, rounds: usize) -> Self {
        let dearer = rows.iter().rposition(|row| row.once_ns() > row.copy_ns);
        let pays_from_bytes = rows.get(dearer.map_or(0, |last| last + 1)).map(|row| row.bytes);
        Self { rows, pays_from_bytes, rounds }
    }
}

/// Maps, unmaps and copies the start of `file`, or of temporary files where there is none, in sizes of 4 KiB to 64 MiB (or to what the file has
/// or the space takes). The file is in the page cache by then.
///
/// # Errors
/// [`BenchError`].
pub fn map(nic: &mut dyn Nic, file: Option<&Path>, rounds: usize, stop: &AtomicBool) -> Result<MapFigures, BenchError> {
    if rounds == 0 {
        return Err(BenchError::Load("at least one round".into()));
    }
    let mut pool = Pool::new(PoolConfig { buffers: 1024, buffer_size: 2048 }).map_err(BenchError::Memory)?;
    let given = file.map(open).transpose()?;
    let limits = nic.space().limits();
    let most = given.as_ref().map_or(SIZES[1], RegularFile::size).min(limits.bytes);
    if let Some(file) = given.as_ref().filter(|file| limits.whole_files || file.size() < SIZES[0]) {
        return Err(BenchError::Load(format!(
            "{} cannot be measured: {}; leave it out, and temporary files are",
            file.name(),
            if limits.whole_files { "this NIC's space maps whole files only" } else { "it has less than 4 KiB" }
        )));
    }
    let sizes = std::iter::successors(Some(SIZES[0]), |size| Some(size * 2)).take_while(|size| *size <= most.min(SIZES[1]));
    let mut rows = Vec::new();
    for bytes in sizes.take_while(|_| !stop.load(Ordering::Relaxed)) {
        rows.push(match &given {
            Some(file) => row(nic, &mut pool, file, bytes, rounds)?,
            None => {
                let temporary = temporary(bytes).map_err(BenchError::File)?;
                row(nic, &mut pool, &open(temporary.path())?, bytes, rounds)?
            }
        });
    }
    Ok(MapFigures::new(rows, rounds))
}

fn open(path: &Path) -> Result<RegularFile, BenchError> {
    match Source::open(path).map_err(|error| BenchError::Load(error.to_string()))? {
        Source::File(file) => Ok(file),
        Source::Stream(stream) => Err(BenchError::Load(format!("{} is a stream, which has no pages to map", stream.name()))),
    }
}

/// A file of so many bytes that are not zero.
fn temporary(bytes: u64) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let block = [0x5a; SIZES[0] as usize];
    for _ in 0..bytes / SIZES[0] {
        file.write_all(&block)?;
    }
    file.rewind()?;
    Ok(file)
}

fn row(nic: &mut dyn Nic, pool: &mut Pool, file: &RegularFile, bytes: u64, rounds: usize) -> Result<MapRow, BenchError> {
    let mut copier = Copier { pool, block: vec![0; DATAGRAM * BURST], buffers: Vec::with_capacity(BURST) };
    // The first copy brings the file into the page cache.
    copier.copy(file, bytes)?;
    let mut windows = WindowCache::new(nic.space(), u64::MAX);
    let (mut maps, mut unmaps, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let start = Instant::now();
        for from in (0..bytes).step_by(windows.window_bytes() as usize) {
            windows.prepare(file, from, bytes.min(from.saturating_add(windows.window_bytes()))).map_err(failed)?;
        }
        windows.release();
        maps.push(start.elapsed());
        let start = Instant::now();
        windows.forget(file);
        windows.sweep().map_err(NicError::from)?;
        unmaps.push(start.elapsed());
    }
    for _ in 0..rounds {
        let start = Instant::now();
        copier.copy(file, bytes)?;
        copies.push(start.elapsed());
    }
    let first = maps.remove(0);
    unmaps.remove(0);
    Ok(MapRow { bytes, first_map_ns: nanos(first), map_ns: median(maps), unmap_ns: median(unmaps), copy_ns: median(copies) })
}

fn failed(error: CacheError) -> BenchError {
    match error {
        CacheError::Map(error) => NicError::from(error).into(),
        other => BenchError::Load(other.to_string()),
    }
}

/// What the copying way has at hand all the time.
struct Copier<'p> {
    pool: &'p mut Pool,
    block: Vec<u8>,
    buffers: Vec<[Option<Buffer>; MOST_BUFFERS]>,
}

impl Copier<'_> {
    /// Does with the bytes of a file what the copying way does: reads a burst, and writes it into buffers.
    fn copy(&mut self, file: &RegularFile, bytes: u64) -> Result<(), BenchError> {
        let mut done = 0;
        while done < bytes {
            let len = (bytes - done).min(self.block.len() as u64);
            let block = &mut self.block[..len as usize];
            file.read_at(block, done).map_err(BenchError::File)?;
            for datagram in block.chunks(DATAGRAM) {
                let buffers = buffers_of(self.pool, datagram).ok_or_else(|| BenchError::Load("no packet buffer is free".into()))?;
                self.buffers.push(buffers);
            }
            self.buffers.clear();
            done += len;
        }
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn median(mut times: Vec<Duration>) -> u64 {
    times.sort_unstable();
    nanos(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use e1000::{E1000, E1000Config};
    use hw_sim::model::e1000::E1000Model;

    fn rows(once_and_copy: &[(u64, u64)]) -> Vec<MapRow> {
        let row = |(index, (map_ns, copy_ns)): (usize, &(u64, u64))| MapRow {
            bytes: 4096 << index,
            first_map_ns: 0,
            map_ns: *map_ns,
            unmap_ns: 1,
            copy_ns: *copy_ns,
        };
        once_and_copy.iter().enumerate().map(row).collect()
    }

    #[test]
    fn mapping_pays_where_no_larger_size_is_dearer() {
        for (figures, pays) in [
            (&[(9, 9), (9, 20), (9, 9), (9, 40)][..], Some(4096 << 3)),
            (&[(1, 2), (1, 3)], Some(4096)),
            (&[(1, 9), (9, 9)], None),
            (&[], None),
        ] {
            assert_eq!(MapFigures::new(rows(figures), 1).pays_from_bytes, pays, "{figures:?}");
        }
    }

    #[test]
    fn all_sizes_of_a_file_are_mapped_and_nothing_stays() {
        let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
        let mut nic = E1000::start(model.device(), E1000Config::default()).unwrap();
        let before = model.mappings();
        let file = temporary(9 << 20).unwrap();
        let figures = map(&mut nic, Some(file.path()), 2, &AtomicBool::new(false)).unwrap();
        assert_eq!(figures.rows.iter().map(|row| row.bytes).collect::<Vec<_>>(), (0..12).map(|log| 4096 << log).collect::<Vec<_>>());
        assert!(figures.rows.iter().all(|row| row.first_map_ns > 0 && row.copy_ns > 0));
        assert_eq!(model.mappings(), before);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
        let mut nic = E1000::start(model.device(), E1000Config::default()).unwrap();
        let small = temporary(0).unwrap();
        for (path, rounds) in [(small.path(), 1), (Path::new("/no/such/file"), 1), (Path::new("/"), 1)] {
            assert!(matches!(map(&mut nic, Some(path), rounds, &AtomicBool::new(false)), Err(BenchError::Load(_))), "{path:?}");
        }
        assert!(matches!(map(&mut nic, None, 0, &AtomicBool::new(false)), Err(BenchError::Load(_))));
    }
}
