//! Windows: ranges of files that are mapped for the device, and the cache of them.
//!
//! Mapping costs about as much as the copy that it saves, so a window is kept for the next send of the same file. The cache has a budget
//! in bytes, since pinned page cache cannot be reclaimed, and gives up what was not used for longest. It is keyed by
//! [`Identity`] and place, so a file that changed is never served from old windows.
//!
//! A window that somebody has a [`Hold`] on is not given up: TCP keeps one while bytes of the window are on their way and not acknowledged. A
//! window that is given up is *retired*: it is unmapped once all frames that were posted until then are completed ([`hal::progress`]),
//! however long that takes.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use hal::{Burst, DmaError, DmaLimits, DmaSpace, Fence, Mapping, Segment};

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
    /// Where the windows of that range are: so a burst finds them without a search.
    in_use: Vec<u32>,
    /// All windows but the retired ones, each at a place that it keeps, and the places that are free.
    windows: Vec<Option<Window>>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
    /// Windows of forgotten files that are still held.
    doomed: usize,
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
    /// How many want it to stay.
    holds: u32,
    /// Its file was forgotten: it goes with its last hold.
    doomed: bool,
    last_use: u64,
    /// Once nobody holds it: what was posted until then.
    fence: Option<Fence>,
}

#[derive(Debug)]
struct Retired {
    key: Key,
    mapping: Mapping,
    fence: Fence,
}

/// A window that stays mapped until this is [given back](WindowCache::let_go).
#[derive(Debug)]
#[must_use = "a hold that is not given back keeps its window mapped"]
pub struct Hold {
    place: u32,
    start: u64,
    end: u64,
}

impl Hold {
    /// The bytes of the file that the window has.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// Why a range has no windows.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The budget is used up by windows that frames still refer to: complete some frames, and try again.
    #[error("all windows are in use")]
    Busy,
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
        let (current, in_use, windows, free, index, retired, statistics) = Default::default();
        Self {
            space,
            wanted,
            budget,
            window,
            limits,
            current,
            in_use,
            windows,
            free,
            index,
            doomed: 0,
            retired,
            mapped: 0,
            clock: 0,
            statistics,
        }
    }

    /// How far from the start a file can be mapped: all of it, but for a partial last page where the space cannot take that.
    pub fn mappable(&self, file: &RegularFile) -> u64 {
        if self.limits.partial_page { file.size() } else { file.size() - file.size() % self.limits.granule }
    }

    /// The size of a window in bytes: `i64::MAX` where a space maps whole files only.
    pub fn window_bytes(&self) -> u64 {
        if self.limits.whole_files { i64::MAX as u64 } else { self.window }
    }

    /// How many bytes from `start` on two windows have: as much as can be prepared at once.
    pub fn reach(&self, start: u64) -> u64 {
        if self.limits.whole_files { u64::MAX } else { 2 * self.window - start % self.window }
    }

    /// What was done so far.
    pub fn statistics(&self) -> WindowStatistics {
        self.statistics
    }

    /// Makes sure that the windows of `start..end` exist, at most two of them. Other windows count as no longer in use.
    ///
    /// `end` is at most [`mappable`](Self::mappable), and no farther from `start` than they [reach](Self::reach).
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
        let (mut start, mut hits) = (first, 0);
        loop {
            let (place, hit) = self.take(file, Key { start, ..key })?;
            hits += u64::from(hit && !known(start));
            self.in_use.push(place);
            if start >= last {
                self.statistics.hits += hits;
                self.current = Some((key, last));
                return Ok(());
            }
            start += self.window;
        }
    }

    /// As [`prepare`](Self::prepare), but maps nothing: returns where the first window that is missing starts, and then what was prepared before stays
    /// so.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_cached(&mut self, file: &RegularFile, start: u64, end: u64) -> Result<Option<u64>, CacheError> {
        let (first, last) = self.places(file, start, end);
        let missing = |place: &u64| !self.index.contains_key(&Key { file: *file.identity(), start: *place });
        match [first, last].into_iter().find(missing) {
            Some(place) => Ok(Some(place)),
            None => self.prepare(file, start, end).map(|()| None),
        }
    }

    /// The windows of the last prepared range are no longer in use, but for frames that are posted: the send is over, or goes on elsewhere.
    pub fn release(&mut self) {
        self.current = None;
        while let Some(place) = self.in_use.pop() {
            self.give(place);
        }
    }

    /// Keeps the window that has the byte at `offset`, before [`mappable`](Self::mappable), until the hold is given back. It is mapped now, if it
    /// is not.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare). [`DmaError::Full`] also says that all windows are held.
    pub fn hold(&mut self, file: &RegularFile, offset: u64) -> Result<Hold, CacheError> {
        let (start, _) = self.places(file, offset, offset + 1);
        self.clock += 1;
        let (place, hit) = self.take(file, Key { file: *file.identity(), start })?;
        self.statistics.hits += u64::from(hit);
        let len = self.windows.get(place as usize).and_then(Option::as_ref).map_or(0, |window| window.mapping.len());
        Ok(Hold { place, start, end: start + len })
    }

    /// `len` bytes of the file from `offset` on, as a segment for the device; `None` when they are not all in the window.
    #[inline]
    pub fn segment(&self, hold: &Hold, offset: u64, len: u32) -> Option<Segment<'_>> {
        let window = self.windows.get(hold.place as usize)?.as_ref()?;
        window.mapping.segment(offset.checked_sub(window.key.start)?, len)
    }

    /// The window may go, as soon as what was posted until now is completed.
    pub fn let_go(&mut self, hold: Hold) {
        self.give(hold.place);
    }

    /// The place of a window, which is held once more, and whether it was there.
    fn take(&mut self, file: &RegularFile, key: Key) -> Result<(u32, bool), CacheError> {
        if let Some(place) = self.index.get(&key).copied()
            && let Some(Some(window)) = self.windows.get_mut(place as usize)
        {
            window.holds += 1;
            window.fence = None;
            return Ok((place, true));
        }
        let mapping = self.map(file, key)?;
        let window = Some(Window { key, mapping, holds: 1, doomed: false, last_use: self.clock, fence: None });
        let place = self.free.pop().unwrap_or(self.windows.len() as u32);
        match self.windows.get_mut(place as usize) {
            Some(free) => *free = window,
            None => self.windows.push(window),
        }
        self.index.insert(key, place);
        Ok((place, false))
    }

    /// One hold less.
    fn give(&mut self, place: u32) {
        let Some(Some(window)) = self.windows.get_mut(place as usize) else { return };
        window.holds -= 1;
        if window.holds == 0 {
            window.last_use = self.clock;
            window.fence = Some(self.space.queues().fence());
            if window.doomed {
                self.doomed -= 1;
                self.retire(place);
            }
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
            let reason = format!("the budget for windows is {} bytes (--window-budget); give it at least {}", self.wanted, self.least(len));
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
                // With nothing left to give up, the space's refusal says how to have more.
                Err(full @ DmaError::Full { .. }) => match self.evict_one() {
                    Err(CacheError::Map(_)) => return Err(full.into()),
                    evicted => evicted?,
                },
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What windows of `len` bytes take at least: a datagram may lie across two of them.
    fn least(&self, len: u64) -> u64 {
        if self.limits.whole_files { len } else { 2 * len }
    }

    /// Gives up the window that was unused for longest.
    fn evict_one(&mut self) -> Result<(), CacheError> {
        let unused =
            self.windows.iter().zip(0..).filter_map(|(window, place)| Some((window.as_ref().filter(|window| window.holds == 0)?, place)));
        let Some((_, place)) = unused.min_by_key(|(window, _)| window.last_use) else {
            return Err(if self.retired.is_empty() {
                let least = self.least(self.window);
                let reason = format!("{} bytes are all that there are for windows, and two windows take {least}", self.budget);
                DmaError::Full { len: self.window, reason }.into()
            } else {
                CacheError::Busy
            });
        };
        self.retire(place);
        self.sweep()?;
        Ok(())
    }

    fn retire(&mut self, place: u32) {
        let Some(window) = self.windows.get_mut(place as usize).and_then(Option::take) else { return };
        // A doomed window has left it already, and another may be there under its key.
        if self.index.get(&window.key) == Some(&place) {
            self.index.remove(&window.key);
        }
        self.free.push(place);
        self.statistics.evicted += 1;
        let fence = window.fence.unwrap_or_else(|| self.space.queues().fence());
        self.retired.push(Retired { key: window.key, mapping: window.mapping, fence });
    }

    /// The windows of the range that was prepared last.
    ///
    /// `None` when that was another one.
    pub fn span(&self, file: &RegularFile, start: u64, end: u64) -> Option<Span<'_>> {
        let (first, last) = self.places(file, start, end);
        let key = Key { file: *file.identity(), start: first };
        if self.current != Some((key, last)) {
            return None;
        }
        let window = |place: Option<&u32>| self.windows.get(*place? as usize)?.as_ref();
        Some(Span { first: window(self.in_use.first())?, second: window(self.in_use.last())? })
    }

    /// Gives up all windows of a file, of whatever version, those that are held with their last hold: it changed, or its lease is to be given
    /// up.
    pub fn forget(&mut self, file: &RegularFile) {
        self.release();
        for place in 0..self.windows.len() as u32 {
            let Some(Some(window)) = self.windows.get_mut(place as usize) else { continue };
            if !window.key.file.same_file(file.identity()) {
                continue;
            }
            if window.holds == 0 {
                self.retire(place);
            } else if !window.doomed {
                window.doomed = true;
                self.doomed += 1;
                self.index.remove(&window.key);
            }
        }
    }

    /// Whether anything that was [forgotten](Self::forget) of a file is still mapped, in whatever version. What somebody who opened it anew has mapped
    /// since is no part of it.
    pub fn has_forgotten(&self, file: &RegularFile) -> bool {
        let doomed = self.windows.iter().flatten().filter(|window| window.doomed).map(|window| window.key);
        doomed.chain(self.retired.iter().map(|retired| retired.key)).any(|key| key.file.same_file(file.identity()))
    }

    /// Unmaps what is retired and no longer referred to. Returns how many windows are left that are retired, or will be with their last hold.
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
        failed.map_or(Ok(self.retired.len() + self.doomed), Err)
    }
}

impl Drop for WindowCache {
    fn drop(&mut self) {
        // A NIC is stopped before its windows go (see `Port`), so every fence has passed. Where one has not, the window stays mapped until
        // the space goes.
        self.release();
        for place in 0..self.windows.len() as u32 {
            self.retire(place);
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
