use std::io::Write;

use hal::memory::SharedMemory;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping};

use super::*;

fn file(len: usize) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; len]).unwrap();
    file
}

fn space() -> (E1000Model, Arc<dyn DmaSpace>) {
    let model = E1000Model::new(MAC);
    let space = model.device().dma();
    (model, space)
}

fn limits(space: &Arc<dyn DmaSpace>, change: impl FnOnce(&mut DmaLimits)) -> DmaLimits {
    let mut limits = space.limits();
    change(&mut limits);
    limits
}

#[test]
fn mappings_lie_below_4_gib_and_are_not_used_again_soon() {
    let (model, space) = space();
    let memory = SharedMemory::new("test", 8192).unwrap();
    let first = space.map_memory(&memory, Access::Read).unwrap();
    let second = space.map_memory(&memory, Access::ReadWrite).unwrap();
    assert!(first.iova() >= 0x1000_0000 && second.iova() > first.iova() + first.len(), "a gap between them");
    let gone = first.iova();
    space.unmap(first).unwrap();
    let third = space.map_memory(&memory, Access::Read).unwrap();
    assert!(third.iova() != gone && third.iova() + third.len() < 1 << 32);
    assert_eq!(model.mappings(), 2);
    space.unmap(second).unwrap();
    space.unmap(third).unwrap();
}

#[test]
fn an_address_range_that_is_full_is_used_from_its_start_again() {
    let (model, space) = space();
    let memory = SharedMemory::new("test", 4096).unwrap();
    // Room for two mappings, each with a granule behind it.
    model.set_limits(limits(&space, |limits| limits.ranges = vec![0x2000_0000..=0x2000_3fff]));
    let first = space.map_memory(&memory, Access::Read).unwrap();
    let second = space.map_memory(&memory, Access::Read).unwrap();
    assert!(matches!(space.map_memory(&memory, Access::Read), Err(DmaError::Full { .. })));
    let at = first.iova();
    space.unmap(first).unwrap();
    let again = space.map_memory(&memory, Access::Read).unwrap();
    assert_eq!(again.iova(), at);
    space.unmap(again).unwrap();
    space.unmap(second).unwrap();
}

#[test]
fn maps_and_bytes_are_limited() {
    let (model, space) = space();
    let memory = SharedMemory::new("test", 4096).unwrap();
    model.set_limits(limits(&space, |limits| (limits.maps, limits.bytes) = (3, 8192)));
    let first = space.map_memory(&memory, Access::Read).unwrap();
    assert_eq!(space.limits().maps, 2);
    let second = space.map_memory(&memory, Access::Read).unwrap();
    assert!(matches!(space.map_memory(&memory, Access::Read), Err(DmaError::Full { .. })), "bytes");
    model.set_limits(limits(&space, |limits| (limits.maps, limits.bytes) = (0, 1 << 20)));
    assert!(matches!(space.map_memory(&memory, Access::Read), Err(DmaError::Full { .. })), "maps");
    space.unmap(first).unwrap();
    assert_eq!(space.limits().maps, 1);
    space.unmap(second).unwrap();
}

#[test]
fn a_mapping_that_is_not_there_cannot_be_taken_back() {
    let (_model, space) = space();
    assert!(matches!(space.unmap(Mapping::new(space.domain(), 0x5000_0000, 4096)), Err(DmaError::Unmap { .. })));
}

#[test]
fn the_last_page_of_a_file_is_mapped_up_to_its_end() {
    let (model, space) = space();
    let file = file(5000);
    let whole = space.map_file(file.as_fd(), 0..5000).unwrap();
    let rounded = space.map_file(file.as_fd(), 4096..8192).unwrap();
    assert_eq!((whole.len(), rounded.len()), (5000, 904));
    assert!(space.map_file(file.as_fd(), 0..8193).is_err());
    assert!(space.map_file(file.as_fd(), 100..5000).is_err());
    model.set_limits(limits(&space, |limits| limits.partial_page = false));
    let pages = space.map_file(file.as_fd(), 0..5000).unwrap();
    assert_eq!(pages.len(), 4096);
    assert!(matches!(space.map_file(file.as_fd(), 4096..5000), Err(DmaError::Unsupported(_))));
    for mapping in [whole, rounded, pages] {
        space.unmap(mapping).unwrap();
    }
}

#[test]
fn whole_files_and_writable_descriptors_can_be_asked_for() {
    let (model, space) = space();
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(&[7; 8192]).unwrap();
    let read_only = std::fs::File::open(named.path()).unwrap();
    model.set_limits(limits(&space, |limits| limits.whole_files = true));
    assert!(space.map_file(read_only.as_fd(), 0..4096).is_err());
    let mapping = space.map_file(read_only.as_fd(), 0..8192).unwrap();
    model.set_limits(limits(&space, |limits| limits.writable_descriptor = true));
    assert!(space.map_file(read_only.as_fd(), 0..8192).is_err());
    let writable = space.map_file(named.as_file().as_fd(), 0..8192).unwrap();
    space.unmap(mapping).unwrap();
    space.unmap(writable).unwrap();
}

#[test]
fn a_truncated_file_reads_as_zeros() {
    let mut bench = Bench::new();
    let file = file(8192);
    let space = bench.device.dma();
    let mapping = space.map_file(file.as_fd(), 0..8192).unwrap();
    file.set_len(100).unwrap();
    bench.put(legacy(mapping.iova(), 200, EOP | IFCS));
    assert_eq!(bench.go(), [[[7; 100], [0; 100]].concat()]);
    space.unmap(mapping).unwrap();
    bench.clean();
}
