//! The windows that a connection's bytes on their way are in: held until these are acknowledged, for a retransmission gathers from them again.

use std::ops::Range;

use hal::Segment;

use super::file::SharedFile;
use crate::file::{CacheError, Hold, WindowCache};

/// The holds of one connection: mostly one, or two where its file goes from one window to the next.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    file: SharedFile,
    hold: Hold,
    /// The stream offset behind the last byte that the connection has in this window.
    end: u64,
    /// Bytes of the stream that the window has, and by how much their offsets in the file are larger (modulo 2^64).
    stream: Range<u64>,
    shift: u64,
}

impl Held {
    /// Holds the window that has the byte of `file` at `offset`, which stands at stream offset `start`, with `rest` bytes of its extent from there
    /// on. Returns how many bytes the window has from there on.
    ///
    /// # Errors
    /// As [`WindowCache::hold`].
    pub fn hold(&mut self, windows: &mut WindowCache, file: &SharedFile, offset: u64, start: u64, rest: u64) -> Result<u64, CacheError> {
        let entry = match self.find(file, offset) {
            Some(place) => &mut self.0[place],
            None => {
                let hold = windows.hold(file.file(), offset)?;
                self.0.push(Entry { file: file.clone(), hold, end: 0, stream: 0..0, shift: 0 });
                self.0.last_mut().expect("just pushed")
            }
        };
        let len = entry.hold.range().end.saturating_sub(offset);
        let (end, shift) = (start + len.min(rest), offset.wrapping_sub(start));
        entry.end = entry.end.max(end);
        if entry.shift == shift && entry.stream.contains(&start) {
            entry.stream.end = end;
        } else {
            (entry.stream, entry.shift) = (start..end, shift);
        }
        Ok(len)
    }

    /// Whether a range of the stream is known to lie in one window.
    #[inline]
    pub fn has(&self, range: &Range<u64>) -> bool {
        self.entry_of(range).is_some()
    }

    /// The bytes of a range of the stream that is [known](Self::has) to lie in one window, for the device.
    #[inline]
    pub fn segment_of<'w>(&self, windows: &'w WindowCache, range: &Range<u64>) -> Option<Segment<'w>> {
        let entry = self.entry_of(range)?;
        windows.segment(&entry.hold, range.start.wrapping_add(entry.shift), (range.end - range.start) as u32)
    }

    /// The file of a range of the stream that is known to lie in one window, and that ends before its extent does; and where in it the range
    /// starts.
    #[inline]
    pub fn file_of(&self, range: &Range<u64>) -> Option<(&SharedFile, u64)> {
        let entry = self.entry_of(&(range.start..range.end + 1))?;
        Some((&entry.file, range.start.wrapping_add(entry.shift)))
    }

    #[inline]
    fn entry_of(&self, range: &Range<u64>) -> Option<&Entry> {
        self.0.iter().rev().find(|entry| entry.stream.start <= range.start && range.end <= entry.stream.end && range.start < range.end)
    }

    /// At most `len` bytes of a file from `offset` on, for the device: as many as the window has. `None` when it is not held.
    pub fn segment<'w>(&self, windows: &'w WindowCache, file: &SharedFile, offset: u64, len: u32) -> Option<Segment<'w>> {
        let hold = &self.0[self.find(file, offset)?].hold;
        let len = u64::from(len).min(hold.range().end - offset) as u32;
        windows.segment(hold, offset, len)
    }

    /// The bytes in front of stream offset `offset` have arrived.
    pub fn acknowledge(&mut self, windows: &mut WindowCache, offset: u64) {
        while let Some(place) = self.0.iter().position(|entry| entry.end <= offset) {
            windows.let_go(self.0.swap_remove(place).hold);
        }
    }

    /// Lets the windows of one file go.
    pub fn let_go_of(&mut self, windows: &mut WindowCache, file: &SharedFile) {
        while let Some(place) = self.0.iter().position(|entry| entry.file.is(file)) {
            windows.let_go(self.0.swap_remove(place).hold);
        }
    }

    /// Lets all of them go.
    pub fn let_go(&mut self, windows: &mut WindowCache) {
        std::mem::take(&mut self.0).into_iter().for_each(|entry| windows.let_go(entry.hold));
    }

    fn find(&self, file: &SharedFile, offset: u64) -> Option<usize> {
        self.0.iter().rposition(|entry| entry.hold.range().contains(&offset) && entry.file.is(file))
    }
}
