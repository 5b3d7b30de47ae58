//! Windows: ranges of files that are mapped for the device, and the cache of them.
//!
//! Mapping costs about as much as the copy that it saves, so a window is kept for the next send of the same file. The cache has a budget
//! in bytes, since pinned page cache cannot be reclaimed, and gives up what was not used for longest. It is keyed by
//! [`Identity`] and place, so a file that changed is never served from old windows.
//!
//! A window that is given up is *retired*: it is unmapped once all frames that were posted until then are completed
//! ([`hal::progress`]), however long that takes.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use hal::{Burst, DmaError, DmaLimits, DmaSpace, Fence, Mapping};

use super::identity::Identity;
use super::source::RegularFile;

/// The largest size of a window in bytes, where a space maps parts of files: a multiple of a huge page.
const WINDOW: u64 = 4 << 20;

/// The windows of one space.
pub struct WindowCache {
    space: Arc<dyn DmaSpace>,
    limits: DmaLimits,
    /// What was asked for, and what of that the space allows.
    wanted: u64,
    budget: u64,
    /// The size of a window in bytes.
    window: u64,
    /// The first and the last window of the range that was prepared.
    current: Option<(Key, u64)>,
    /// The windows of that range, which go back to the others when it is released: so a burst finds them without a search.
    in_use: Vec<Window>,
    windows: HashMap<Key, Unused>,
    retired: Vec<Retired>,
    /// Bytes that are mapped, retired windows included.
    mapped: u64,
    clock: u64,
    statistics: WindowStatistics,
}

/// What a cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WindowStatistics {
    /// Windows mapped.
    pub mapped: u64,
    /// Times that a wanted window was there.
    pub hits: u64,
    /// Windows given up for others, or because their file changed.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    file: Identity,
    start: u64,
}

/// A range of a file that is mapped.
#[derive(Debug)]
struct Window {
    key: Key,
    mapping: Mapping,
}

/// A window that no burst is built from, free as soon as what was posted until then is done.
#[derive(Debug)]
struct Unused {
    mapping: Mapping,
    last_use: u64,
    fence: Fence,
}

#[derive(Debug)]
struct Retired {
    mapping: Mapping,
    fence: Fence,
}

/// Why a range has no windows.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The budget is used up by windows that frames still refer to: complete some frames, and try again.
    #[error("all windows are in use")]
    Busy,
    /// There is no window yet, and none was to be made.
    #[error("the file is not mapped from byte {from} on")]
    Cold {
        /// where the first window that is missing starts
        from: u64,
    },
    /// It cannot be mapped at all: copy instead.
    #[error(transparent)]
    Map(#[from] DmaError),
}

impl WindowCache {
    /// A cache for `space` of at most `budget` bytes, or of what the space allows when that is less.
    pub fn new(space: Arc<dyn DmaSpace>, budget: u64) -> Self {
        let limits = space.limits();
        let (wanted, budget) = (budget, budget.min(limits.bytes));
        // A datagram may lie across two windows, so two have to fit.
        let window = (budget / 2).checked_ilog2().map_or(0, |log| 1 << log).clamp(limits.granule, WINDOW.max(limits.granule));
        let (current, in_use, windows, retired, statistics) = Default::default();
        Self { space, wanted, budget, window, limits, current, in_use, windows, retired, mapped: 0, clock: 0, statistics }
    }

    /// How far from the start a file can be mapped: all of it, but for a partial last page where the space cannot take that.
    pub fn mappable(&self, file: &RegularFile) -> u64 {
        if self.limits.partial_page { file.size() } else { file.size() - file.size() % self.limits.granule }
    }

    /// The size of a window in bytes: `i64::MAX` where a space maps whole files only.
    pub fn window_bytes(&self) -> u64 {
        if self.limits.whole_files { i64::MAX as u64 } else { self.window }
    }

    /// What was done so far.
    pub fn statistics(&self) -> WindowStatistics {
        self.statistics
    }

    /// Makes sure that the windows of `start..end` exist, at most two of them. Other windows count as no longer in use.
    ///
    /// `end` is at most [`mappable`](Self::mappable).
    ///
    /// # Errors
    /// [`CacheError::Busy`] when the caller has to let frames complete first; [`CacheError::Map`] when the range cannot be mapped.
    pub fn prepare(&mut self, file: &RegularFile, start: u64, end: u64) -> Result<(), CacheError> {
        let (first, last) = self.places(file, start, end);
        let key = Key { file: *file.identity(), start: first };
        if self.current == Some((key, last)) {
            return Ok(());
        }
        // A neighbour that the last burst has reached already is no hit.
        let before = self.current;
        let known = |place: u64| before.is_some_and(|(from, to)| from.file == key.file && (from.start..=to).contains(&place));
        self.release();
        self.clock += 1;
        let (mut place, mut hits) = (first, 0);
        loop {
            let key = Key { start: place, ..key };
            let mapping = match self.windows.remove(&key) {
                Some(window) => {
                    hits += u64::from(!known(place));
                    window.mapping
                }
                None => self.map(file, key)?,
            };
            self.in_use.push(Window { key, mapping });
            if place >= last {
                self.statistics.hits += hits;
                self.current = Some((Key { start: first, ..key }, last));
                return Ok(());
            }
            place += self.window;
        }
    }

    /// As [`prepare`](Self::prepare), but maps nothing.
    ///
    /// # Errors
    /// [`CacheError::Cold`] when a window is missing; what was prepared before stays so.
    pub fn prepare_cached(&mut self, file: &RegularFile, start: u64, end: u64) -> Result<(), CacheError> {
        let (first, last) = self.places(file, start, end);
        for place in [first, last] {
            let key = Key { file: *file.identity(), start: place };
            if !self.windows.contains_key(&key) && !self.in_use.iter().any(|window| window.key == key) {
                return Err(CacheError::Cold { from: place });
            }
        }
        self.prepare(file, start, end)
    }

    /// The windows of the last prepared range are no longer in use, but for frames that are posted: the send is over, or goes on elsewhere.
    pub fn release(&mut self) {
        self.current = None;
        for Window { key, mapping } in self.in_use.drain(..) {
            self.windows.insert(key, Unused { mapping, last_use: self.clock, fence: self.space.queues().fence() });
        }
    }

    /// Where the windows of `start` and of the last byte before `end` start.
    fn places(&self, file: &RegularFile, start: u64, end: u64) -> (u64, u64) {
        if self.limits.whole_files || file.size() == 0 {
            (0, 0)
        } else {
            (start - start % self.window, (end.max(start + 1) - 1) / self.window * self.window)
        }
    }

    fn map(&mut self, file: &RegularFile, key: Key) -> Result<Mapping, CacheError> {
        let mappable = self.mappable(file);
        let end = if self.limits.whole_files { mappable } else { mappable.min(key.start + self.window) };
        let len = end.saturating_sub(key.start);
        self.sweep()?;
        if len > self.wanted {
            let reason = format!("the budget for windows is {} bytes (--window-budget); give it at least {len}", self.wanted);
            return Err(DmaError::Full { len, reason }.into());
        }
        // Where the space itself has less room than that, its own refusal says how to have more.
        while len <= self.budget && self.mapped + len > self.budget {
            let soon: u64 = self.retired.iter().map(|retired| retired.mapping.len()).sum();
            if soon > 0 && self.mapped - soon + len <= self.budget {
                // What is retired already makes room as soon as frames complete; nothing else has to go.
                return Err(CacheError::Busy);
            }
            self.evict_one()?;
        }
        loop {
            // Whether there is room for one more is for the space to say: to ask it first would take longer than to map a small window.
            match self.space.map_file(file.as_fd(), key.start..end) {
                Ok(mapping) => {
                    self.mapped += mapping.len();
                    self.statistics.mapped += 1;
                    return Ok(mapping);
                }
                Err(DmaError::Full { .. }) if !self.retired.is_empty() => return Err(CacheError::Busy),
                Err(DmaError::Full { .. }) if !self.windows.is_empty() => self.evict_one()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives up the window that was unused for longest.
    fn evict_one(&mut self) -> Result<(), CacheError> {
        let oldest = self.windows.iter().min_by_key(|(_, window)| window.last_use);
        let Some(key) = oldest.map(|(key, _)| *key) else {
            return Err(if self.retired.is_empty() {
                DmaError::Full { len: self.window, reason: "the space has no room besides the windows in use".into() }.into()
            } else {
                CacheError::Busy
            });
        };
        self.retire(&key);
        self.sweep()?;
        Ok(())
    }

    fn retire(&mut self, key: &Key) {
        if let Some(window) = self.windows.remove(key) {
            self.statistics.evicted += 1;
            self.retired.push(Retired { mapping: window.mapping, fence: window.fence });
        }
    }

    /// The windows of the range that was prepared last.
    ///
    /// `None` when that was another one.
    pub fn span(&self, file: &RegularFile, start: u64, end: u64) -> Option<Span<'_>> {
        let (first, last) = self.places(file, start, end);
        let key = Key { file: *file.identity(), start: first };
        let prepared = self.current == Some((key, last));
        if prepared { Some(Span { first: self.in_use.first()?, second: self.in_use.last()? }) } else { None }
    }

    /// Gives up all windows of a file, of whatever version: it changed, or its lease is to be given up.
    pub fn forget(&mut self, file: &RegularFile) {
        self.release();
        let keys: Vec<Key> = self.windows.keys().filter(|key| key.file.same_file(file.identity())).copied().collect();
        for key in keys {
            self.retire(&key);
        }
    }

    /// Unmaps what is retired and no longer referred to. Returns how many retired windows are left.
    ///
    /// # Errors
    /// [`DmaError::Unmap`]; the window stays mapped and counts against the budget for ever.
    pub fn sweep(&mut self) -> Result<usize, DmaError> {
        let mut failed = None;
        let (done, waiting) = std::mem::take(&mut self.retired).into_iter().partition(|retired| retired.fence.passed());
        self.retired = waiting;
        for Retired { mapping, .. } in done {
            let len = mapping.len();
            match self.space.unmap(mapping) {
                Ok(()) => self.mapped -= len,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(self.retired.len()), Err)
    }
}

impl Drop for WindowCache {
    fn drop(&mut self) {
        // A NIC is stopped before its windows go (see `Port`), so every fence has passed. Where one has not, the window stays mapped until
        // the space goes.
        self.release();
        let keys: Vec<Key> = self.windows.keys().copied().collect();
        for key in keys {
            self.retire(&key);
        }
        let _ = self.sweep();
    }
}

/// The windows of the range that one burst sends: one, or two neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Span<'w> {
    first: &'w Window,
    second: &'w Window,
}

impl<'w> Span<'w> {
    /// Adds the file's bytes from `offset` on to the last frame of the burst, as one segment or two. Returns how many bytes were
    /// added: fewer than `len` when the span ends before.
    #[inline]
    pub fn gather(&self, burst: &mut Burst<'w>, offset: u64, len: u32) -> u32 {
        if let Some(segment) = offset.checked_sub(self.first.key.start).and_then(|inside| self.first.mapping.segment(inside, len)) {
            burst.gather(segment);
            return len;
        }
        self.gather_across(burst, offset, len)
    }

    #[cold]
    fn gather_across(&self, burst: &mut Burst<'w>, offset: u64, len: u32) -> u32 {
        let mut done = 0;
        for window in [self.first, self.second] {
            let Some(inside) = (offset + u64::from(done)).checked_sub(window.key.start) else { continue };
            let part = window.mapping.len().saturating_sub(inside).min(u64::from(len - done)) as u32;
            if let Some(segment) = window.mapping.segment(inside, part) {
                burst.gather(segment);
                done += part;
            }
        }
        done
    }
}

#[cfg(test)]
mod tests;
