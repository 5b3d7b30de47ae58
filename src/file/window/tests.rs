use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use hal::{BusDevice, DmaLimits, Progress};
use hw_sim::model::e1000::E1000Model;

use super::*;
use crate::file::Source;

/// A model's space, and a queue on it.
struct Space {
    model: E1000Model,
    _device: Box<dyn BusDevice>,
    space: Arc<dyn DmaSpace>,
    queue: Arc<Progress>,
}

fn space(change: impl FnOnce(&mut DmaLimits)) -> Space {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    let device = model.device();
    let mut limits = device.dma().limits();
    change(&mut limits);
    model.set_limits(limits);
    let space = device.dma();
    Space { queue: space.queues().join(), model, _device: device, space }
}

/// A file of so many bytes, most of them a hole.
fn file(size: u64) -> (tempfile::NamedTempFile, RegularFile) {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(size).unwrap();
    let opened = open(&named);
    (named, opened)
}

fn open(named: &tempfile::NamedTempFile) -> RegularFile {
    match Source::open(named.path()).unwrap() {
        Source::File(file) => file,
        Source::Stream(_) => panic!("a regular file"),
    }
}

fn addresses(cache: &WindowCache, file: &RegularFile, start: u64, end: u64) -> Vec<(u64, u32)> {
    let mut pool = hal::Pool::new(Default::default()).unwrap();
    let mut header = pool.take().unwrap();
    header.set(b"header");
    let mut burst = Burst::default();
    burst.push(header, hal::Offload::NONE);
    let gathered = cache.span(file, start, end).unwrap().gather(&mut burst, start, (end - start) as u32);
    assert_eq!(u64::from(gathered), end - start);
    burst.frames().next().unwrap().segments.iter().map(|segment| (segment.address(), segment.len())).collect()
}

#[test]
fn a_window_that_is_there_is_used_again() {
    let Space { space, .. } = space(|_| ());
    let (_named, file) = file(WINDOW);
    let mut cache = WindowCache::new(space, u64::MAX);
    for _ in 0..3 {
        for start in (0..WINDOW).step_by(1 << 20) {
            cache.prepare(&file, start, start + 4096).unwrap();
        }
        cache.release();
    }
    assert_eq!(cache.statistics(), WindowStatistics { mapped: 1, hits: 2, evicted: 0 });
}

#[test]
fn bytes_across_two_windows_become_two_segments() {
    let Space { space, .. } = space(|_| ());
    let (_named, file) = file(2 * WINDOW);
    let mut cache = WindowCache::new(space, u64::MAX);
    cache.prepare(&file, WINDOW - 100, WINDOW + 200).unwrap();
    let segments = addresses(&cache, &file, WINDOW - 100, WINDOW + 200);
    assert_eq!(segments.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [100, 200]);
    assert_eq!(segments[0].0 % 4096, 4096 - 100);
    assert_eq!(segments[1].0 % 4096, 0);
}

#[test]
fn a_file_larger_than_the_budget_streams_through() {
    let Space { space, model, .. } = space(|_| ());
    let (_named, file) = file(10 * WINDOW);
    let mut cache = WindowCache::new(space, 3 * WINDOW);
    let before = model.mappings();
    for start in (0..10 * WINDOW - 4096).step_by(4096) {
        cache.prepare(&file, start, start + 8192).unwrap();
        assert!(cache.mapped <= 3 * WINDOW);
    }
    assert_eq!(cache.statistics().mapped, 10);
    assert_eq!(cache.statistics().evicted, 7);
    drop(cache);
    assert_eq!(model.mappings(), before, "nothing stays mapped");
}

#[test]
fn a_window_that_frames_refer_to_is_not_unmapped() {
    let Space { space, model, queue, .. } = space(|_| ());
    let (_named, file) = file(3 * WINDOW);
    let mut cache = WindowCache::new(space, 2 * WINDOW);
    cache.prepare(&file, 0, 4096).unwrap();
    cache.prepare(&file, WINDOW, WINDOW + 4096).unwrap();
    queue.set_posted(32);
    cache.prepare(&file, WINDOW - 1, WINDOW + 4096).unwrap();
    let third = 2 * WINDOW;
    assert!(matches!(cache.prepare(&file, third, third + 4096), Err(CacheError::Busy)), "32 frames are on their way");
    assert_eq!(model.mappings(), 2);
    queue.set_completed(31);
    assert!(matches!(cache.prepare(&file, third, third + 4096), Err(CacheError::Busy)));
    queue.set_completed(32);
    cache.prepare(&file, third, third + 4096).unwrap();
    assert_eq!(model.mappings(), 2);
    assert!(cache.span(&file, 0, 4096).is_none(), "the old window is gone");
}

#[test]
fn a_file_that_changed_is_another_file() {
    let Space { space, .. } = space(|_| ());
    let (named, before) = file(8192);
    let mut cache = WindowCache::new(space, u64::MAX);
    cache.prepare(&before, 0, 8192).unwrap();
    File::options().append(true).open(named.path()).unwrap().write_all(&[1; 4096]).unwrap();
    let after = open(&named);
    assert!(cache.span(&after, 0, 8192).is_none());
    cache.prepare(&after, 0, 12288).unwrap();
    assert_eq!(cache.statistics(), WindowStatistics { mapped: 2, hits: 0, evicted: 0 });
    cache.forget(&after);
    assert_eq!((cache.sweep().unwrap(), cache.mapped), (0, 0), "forgotten in every version");
}

#[test]
fn the_number_of_mappings_is_a_bound_too() {
    let Space { space, .. } = space(|limits| limits.maps = 2);
    let (_named, file) = file(5 * WINDOW);
    let mut cache = WindowCache::new(space, u64::MAX);
    for window in 0..5 {
        cache.prepare(&file, window * WINDOW, window * WINDOW + 1).unwrap();
    }
    assert_eq!(cache.statistics(), WindowStatistics { mapped: 5, hits: 0, evicted: 3 });
}

#[test]
fn a_small_budget_makes_small_windows_and_the_file_still_streams_through() {
    for budget in [8192, 5 << 20, 4 << 20, 256 << 10] {
        let Space { space, .. } = space(|_| ());
        let size = 4 * budget;
        let (_named, file) = file(size);
        let mut cache = WindowCache::new(space, budget);
        for start in (0..size - 2048).step_by(1024) {
            cache.prepare(&file, start, start + 2048).unwrap();
            assert!(cache.mapped <= budget, "{} of {budget}", cache.mapped);
        }
    }
}

#[test]
fn a_space_that_maps_whole_files_gets_one_window() {
    let Space { space, .. } = space(|limits| (limits.whole_files, limits.partial_page) = (true, false));
    let (_named, file) = file(3 * WINDOW + 100);
    let mut cache = WindowCache::new(space, u64::MAX);
    assert_eq!(cache.mappable(&file), 3 * WINDOW);
    for start in [0, WINDOW, 2 * WINDOW + 5] {
        cache.prepare(&file, start, start + 1000).unwrap();
        assert_eq!(addresses(&cache, &file, start, start + 1000).len(), 1);
    }
    assert_eq!(cache.statistics().mapped, 1);
}

#[test]
fn what_no_budget_holds_is_copied_instead() {
    let Space { space, .. } = space(|limits| limits.whole_files = true);
    let (_named, file) = file(3 * WINDOW);
    let mut cache = WindowCache::new(space, WINDOW);
    let error = cache.prepare(&file, 0, 4096).unwrap_err();
    assert!(matches!(&error, CacheError::Map(DmaError::Full { .. })), "{error}");
    assert!(error.to_string().contains("--window-budget"), "{error}");
}

#[test]
fn a_window_that_is_held_stays_and_goes_when_hold_and_frames_are_done() {
    let Space { space, model, queue, .. } = space(|_| ());
    let (_named, file) = file(4 * WINDOW);
    let mut cache = WindowCache::new(space, 2 * WINDOW);
    let (first, again) = (cache.hold(&file, 5).unwrap(), cache.hold(&file, WINDOW - 1).unwrap());
    assert_eq!((first.range(), again.range()), (0..WINDOW, 0..WINDOW));
    let second = cache.hold(&file, WINDOW).unwrap();
    queue.set_posted(8);
    assert!(matches!(cache.hold(&file, 2 * WINDOW), Err(CacheError::Map(DmaError::Full { .. }))), "both are held");
    cache.let_go(first);
    assert!(matches!(cache.hold(&file, 2 * WINDOW), Err(CacheError::Map(DmaError::Full { .. }))), "still held once");
    cache.let_go(again);
    assert!(matches!(cache.hold(&file, 2 * WINDOW), Err(CacheError::Busy)), "8 frames are on their way");
    assert_eq!(model.mappings(), 2);
    queue.set_completed(8);
    let third = cache.hold(&file, 2 * WINDOW).unwrap();
    assert_eq!(third.range(), 2 * WINDOW..3 * WINDOW);
    assert_eq!((model.mappings(), cache.statistics()), (2, WindowStatistics { mapped: 3, hits: 1, evicted: 1 }));
    assert_eq!(cache.segment(&second, WINDOW + 7, 100).unwrap().len(), 100);
    assert!(cache.segment(&second, WINDOW - 1, 2).is_none() && cache.segment(&second, 2 * WINDOW - 1, 2).is_none());
}

#[test]
fn a_window_of_a_forgotten_file_goes_with_its_last_hold() {
    let Space { space, model, .. } = space(|_| ());
    let (named, before) = file(8192);
    let mut cache = WindowCache::new(space, u64::MAX);
    let hold = cache.hold(&before, 0).unwrap();
    cache.forget(&before);
    assert_eq!((cache.sweep().unwrap(), cache.has_forgotten(&before), model.mappings()), (1, true, 1));
    // The same version again is another window: the forgotten one takes no new holds.
    let other = cache.hold(&open(&named), 0).unwrap();
    assert_eq!(model.mappings(), 2);
    cache.let_go(hold);
    assert_eq!((cache.sweep().unwrap(), model.mappings()), (0, 1));
    assert!(!cache.has_forgotten(&before), "the newer window was not forgotten");
    cache.let_go(other);
    cache.hold(&before, 0).map(|hold| cache.let_go(hold)).unwrap();
    assert_eq!(cache.statistics().hits, 1, "the newer window stayed");
    cache.forget(&before);
    assert!(cache.sweep().unwrap() == 0 && !cache.has_forgotten(&before));
}

#[test]
fn what_is_prepared_and_held_is_one_window() {
    let Space { space, model, .. } = space(|_| ());
    let (_named, file) = file(2 * WINDOW);
    let mut cache = WindowCache::new(space, u64::MAX);
    let hold = cache.hold(&file, 0).unwrap();
    cache.prepare(&file, WINDOW - 10, WINDOW + 10).unwrap();
    assert_eq!(model.mappings(), 2);
    cache.let_go(hold);
    assert_eq!(addresses(&cache, &file, WINDOW - 10, WINDOW + 10).len(), 2);
    drop(cache);
    assert_eq!(model.mappings(), 0, "nothing stays mapped");
}
