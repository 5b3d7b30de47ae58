//! What a connection sends, as a list of extents over stream offsets: bytes of the program, or ranges of files. Nothing is kept twice: the file
//! is its own send buffer.
//!
//! An extent is dropped when its last byte is acknowledged; with it goes the program's memory, or the claim that the file does not change.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::file::SharedFile;

/// The send buffer. The first byte of the stream has offset 0.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// In order and without gaps; none is empty.
    list: VecDeque<Extent>,
    /// What is in front of it is acknowledged.
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Extent {
    /// The stream offset of its first byte, and the one behind its last.
    start: u64,
    end: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Bytes(Box<[u8]>),
    File { file: SharedFile, offset: u64 },
}

/// Neighbouring bytes of one extent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'e> {
    /// The stream offset of the first.
    pub start: u64,
    /// How many are wanted.
    pub len: u64,
    /// How many the extent has from `start` on.
    pub rest: u64,
    pub content: Content<'e>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'e> {
    /// All that are wanted.
    Bytes(&'e [u8]),
    /// The file, and where in it.
    File(&'e SharedFile, u64),
}

impl Extents {
    /// The stream offset of the first byte that is not acknowledged.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The stream offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds bytes behind all others.
    pub fn push_bytes(&mut self, bytes: impl Into<Box<[u8]>>) {
        let bytes = bytes.into();
        self.push(bytes.len() as u64, Source::Bytes(bytes));
    }

    /// Adds a range of a file, which the caller has checked, behind all others.
    pub fn push_file(&mut self, file: SharedFile, range: Range<u64>) {
        self.push(range.end.saturating_sub(range.start), Source::File { file, offset: range.start });
    }

    fn push(&mut self, len: u64, source: Source) {
        if len > 0 {
            let start = self.end;
            self.end += len;
            self.list.push_back(Extent { start, end: self.end, source });
        }
    }

    /// The bytes in front of `offset` have arrived.
    pub fn acknowledge(&mut self, offset: u64) {
        self.start = self.start.max(offset.min(self.end));
        while self.list.front().is_some_and(|extent| extent.end <= self.start) {
            self.list.pop_front();
        }
        // A connection that waits for the next request keeps no memory for the last answer.
        if self.list.is_empty() && self.list.capacity() > 8 {
            self.list = VecDeque::new();
        }
    }

    /// Forgets what is behind `offset`.
    pub fn truncate(&mut self, offset: u64) {
        self.end = self.end.min(offset.max(self.start));
        while self.list.back().is_some_and(|extent| extent.start >= self.end || self.end == self.start) {
            self.list.pop_back();
        }
        if let Some(last) = self.list.back_mut() {
            last.end = self.end;
        }
    }

    /// The parts of a range, as far as it is not acknowledged and is there.
    pub fn parts(&self, range: Range<u64>) -> impl Iterator<Item = Part<'_>> {
        let (start, end) = (range.start.max(self.start), range.end.min(self.end));
        let first = self.list.partition_point(|extent| extent.end <= start);
        self.list.range(first..).take_while(move |extent| start < end && extent.start < end).map(move |extent| {
            let from = start.max(extent.start);
            let (len, inside) = (end.min(extent.end) - from, from - extent.start);
            let content = match &extent.source {
                Source::Bytes(bytes) => Content::Bytes(&bytes[inside as usize..(inside + len) as usize]),
                Source::File { file, offset } => Content::File(file, offset + inside),
            };
            Part { start: from, len, rest: extent.end - from, content }
        })
    }

    /// Where the bytes of `file` begin and end that are not acknowledged, and how many that are.
    pub fn span_of(&self, file: &SharedFile) -> Option<(Range<u64>, u64)> {
        let mut of = self.list.iter().filter(|extent| matches!(&extent.source, Source::File { file: own, .. } if own.is(file)));
        let first = of.next()?;
        let (start, len) = (first.start.max(self.start), first.end - first.start.max(self.start));
        Some(of.fold((start..first.end, len), |(range, len), extent| (range.start..extent.end, len + extent.end - extent.start)))
    }

    /// Reads what is left of `file` here and keeps the bytes in its place, so that the file is no longer needed. Returns how many bytes that
    /// were. The caller has bounded how many that can be, by [`truncate`](Self::truncate).
    ///
    /// # Errors
    /// What reading gave; the extents before are copied then.
    pub fn copy_out(&mut self, file: &SharedFile) -> io::Result<u64> {
        let mut copied = 0;
        for extent in &mut self.list {
            let Source::File { file: own, offset } = &extent.source else { continue };
            if !own.is(file) {
                continue;
            }
            let start = extent.start.max(self.start);
            let mut bytes = vec![0; (extent.end - start) as usize];
            own.file().read_at(&mut bytes, offset + (start - extent.start))?;
            copied += bytes.len() as u64;
            (extent.start, extent.source) = (start, Source::Bytes(bytes.into()));
        }
        Ok(copied)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::file;
    use crate::send::Stability;

    const SIZE: u64 = 10_000;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    fn shared() -> SharedFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content()).unwrap();
        match file::Source::open(file.path()).unwrap() {
            file::Source::File(file) => SharedFile::new(file, Stability::Trust).unwrap(),
            file::Source::Stream(_) => panic!("a regular file"),
        }
    }

    fn read(extents: &Extents, range: Range<u64>) -> Vec<u8> {
        let mut read = Vec::new();
        for part in extents.parts(range.clone()) {
            assert!(part.len > 0 && part.rest >= part.len);
            assert_eq!(part.start, range.start.max(extents.start) + read.len() as u64);
            match part.content {
                Content::Bytes(bytes) => {
                    assert_eq!(bytes.len() as u64, part.len);
                    read.extend_from_slice(bytes);
                }
                Content::File(file, offset) => {
                    let at = read.len();
                    read.resize(at + part.len as usize, 0);
                    file.file().read_at(&mut read[at..], offset).unwrap();
                }
            }
        }
        read
    }

    #[derive(Clone, Debug)]
    enum Action {
        Bytes(Vec<u8>),
        File(u64, u64),
        Acknowledge(f64),
        Truncate(f64),
        CopyOut,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            3 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Action::Bytes),
            4 => (0..=SIZE, 0..=SIZE).prop_map(|(one, other)| Action::File(one.min(other), one.max(other))),
            2 => (0.0..1.2_f64).prop_map(Action::Acknowledge),
            1 => (-0.2..1.2).prop_map(Action::Truncate),
            1 => Just(Action::CopyOut),
        ]
    }

    proptest! {
        #[test]
        fn any_range_of_it_is_what_a_plain_buffer_has(
            actions in proptest::collection::vec(action(), 1..25),
            ranges in proptest::collection::vec((0.0..1.2_f64, 0.0..1.2_f64), 8),
        ) {
            let (file, bytes) = (shared(), content());
            let (mut extents, mut model, mut start) = (Extents::default(), Vec::new(), 0_u64);
            for action in actions {
                let place = |share: f64| (start as f64 + (model.len() as f64 - start as f64) * share) as u64;
                match action {
                    Action::Bytes(bytes) => {
                        extents.push_bytes(bytes.as_slice());
                        model.extend(bytes);
                    }
                    Action::File(from, to) => {
                        extents.push_file(file.clone(), from..to);
                        model.extend_from_slice(&bytes[from as usize..to as usize]);
                    }
                    Action::Acknowledge(share) => {
                        extents.acknowledge(place(share));
                        start = start.max(place(share).min(model.len() as u64));
                    }
                    Action::Truncate(share) => {
                        let at = place(share).max(start);
                        extents.truncate(place(share));
                        model.truncate(at as usize);
                    }
                    Action::CopyOut => {
                        let of_file = extents.span_of(&file).map_or(0, |(_, len)| len);
                        prop_assert_eq!(extents.copy_out(&file).unwrap(), of_file);
                        prop_assert!(extents.span_of(&file).is_none());
                    }
                }
                prop_assert_eq!((extents.start, extents.end()), (start, model.len() as u64));
                prop_assert_eq!(extents.is_empty(), start == extents.end());
                for (one, other) in &ranges {
                    let (from, to) = ((model.len() as f64 * one.min(*other)) as u64, (model.len() as f64 * one.max(*other)) as u64);
                    let expected = model.get((from.max(start)).min(model.len() as u64) as usize..(to.min(model.len() as u64)) as usize);
                    prop_assert_eq!(read(&extents, from..to), expected.unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn a_file_longer_than_four_gibibytes_is_one_extent() {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(5 << 30).unwrap();
        let file::Source::File(file) = file::Source::open(named.path()).unwrap() else { panic!("a regular file") };
        let file = SharedFile::new(file, Stability::Trust).unwrap();
        let mut extents = Extents::default();
        extents.push_bytes(*b"head");
        extents.push_file(file, 1..5 << 30);
        extents.acknowledge(4 << 30);
        let part = extents.parts((4 << 30)..(4 << 30) + 10).next().unwrap();
        assert_eq!((part.len, part.rest), (10, (1 << 30) + 3));
        assert!(matches!(part.content, Content::File(_, offset) if offset == (4 << 30) - 3));
    }

    #[test]
    fn what_is_acknowledged_no_longer_keeps_its_file() {
        let file = shared();
        let mut extents = Extents::default();
        extents.push_file(file.clone(), 0..100);
        extents.push_bytes(*b"tail");
        extents.acknowledge(99);
        assert_eq!(extents.span_of(&file), Some((99..100, 1)));
        extents.acknowledge(100);
        assert_eq!(extents.span_of(&file), None);
        assert_eq!(read(&extents, 0..200), b"tail");
    }
}
