//! What the kernel says about the IOMMU: `VFIO_IOMMU_GET_INFO` and its chain of capabilities.
//!
//! The kernel is trusted to write what it wants, but an offset of another version of the interface must not become a read outside the
//! buffer, so every offset and count is checked.

use std::ops::RangeInclusive;

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
};

/// `struct vfio_iommu_type1_info` without its capabilities.
pub(crate) const INFO_LEN: usize = 24;
/// `struct vfio_info_cap_header`.
const HEADER_LEN: usize = 8;
/// More capabilities than any kernel has: a chain in a circle ends here.
const MOST_CAPABILITIES: usize = 64;

/// What a container says about its IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuInfo {
    /// The sizes of pages in the IOMMU's tables, as bits; the smallest is the granule of maps.
    pub page_sizes: u64,
    /// The usable bus addresses; `None` from kernels before 5.4, which do not say.
    pub ranges: Option<Vec<RangeInclusive<u64>>>,
    /// How many more maps the container takes; `None` from kernels before 5.10, which do not say.
    pub maps_left: Option<u32>,
}

/// An answer that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer is malformed: {0}")]
pub struct InfoError(pub(crate) &'static str);

impl IommuInfo {
    /// Reads the bytes that the ioctl has filled.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, InfoError> {
        let (flags, page_sizes) = (u32_at(bytes, 4)?, u64_at(bytes, 8)?);
        let mut info =
            Self { page_sizes: if flags & VFIO_IOMMU_INFO_PGSIZES == 0 { 4096 } else { page_sizes }, ranges: None, maps_left: None };
        if info.page_sizes == 0 {
            return Err(InfoError("it names no page size"));
        }
        if flags & VFIO_IOMMU_INFO_CAPS == 0 {
            return Ok(info);
        }
        let mut next = u32_at(bytes, 16)? as usize;
        for _ in 0..MOST_CAPABILITIES {
            if next == 0 {
                return Ok(info);
            }
            if next < INFO_LEN {
                return Err(InfoError("a capability lies inside the fixed part"));
            }
            let capability = bytes.get(next..).ok_or(InfoError("a capability starts after the end"))?;
            let id = u32::from(u16_at(capability, 0)?);
            match id {
                VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => info.ranges = Some(ranges(capability)?),
                VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => info.maps_left = Some(u32_at(capability, HEADER_LEN)?),
                _ => {}
            }
            next = u32_at(capability, 4)? as usize;
        }
        Err(InfoError("its capabilities have no end"))
    }

    /// The size of the smallest page.
    pub fn granule(&self) -> u64 {
        1 << self.page_sizes.trailing_zeros()
    }

    /// The usable addresses, with what x86 kernels before 5.4 allow where the kernel does not say.
    pub fn usable(&self) -> Vec<RangeInclusive<u64>> {
        // 39 bits is the least that VT-d has; the hole is where interrupts are written to.
        self.ranges.clone().unwrap_or_else(|| vec![0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1])
    }
}

/// `struct vfio_iommu_type1_info_cap_iova_range`: a count, and pairs of first and last address.
fn ranges(capability: &[u8]) -> Result<Vec<RangeInclusive<u64>>, InfoError> {
    let count = u32_at(capability, HEADER_LEN)? as usize;
    let pairs = &capability[(HEADER_LEN + 8).min(capability.len())..];
    if pairs.len() / 16 < count {
        return Err(InfoError("there are fewer address ranges than it says"));
    }
    let ranges = pairs.chunks_exact(16).take(count).map(|pair| Ok(u64_at(pair, 0)?..=u64_at(pair, 8)?));
    ranges.filter(|range| range.as_ref().is_ok_and(|range| !range.is_empty())).collect()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], InfoError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(InfoError("it ends in the middle of a field"))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, InfoError> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, InfoError> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, InfoError> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixed(flags: u32, page_sizes: u64, first: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(page_sizes.to_ne_bytes());
        bytes.extend(first.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn capability(bytes: &mut Vec<u8>, id: u16, next: u32, body: &[u8]) {
        bytes.extend(id.to_ne_bytes());
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(body);
    }

    fn range_body(count: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut body = count.to_ne_bytes().to_vec();
        body.extend([0; 4]);
        for (first, last) in ranges {
            body.extend(first.to_ne_bytes());
            body.extend(last.to_ne_bytes());
        }
        body
    }

    #[test]
    fn ranges_and_the_number_of_maps_left_are_read() {
        let mut bytes = fixed(3, 0x4020_1000, 24);
        capability(&mut bytes, 3, 40, &[0xff, 0xff, 0, 0, 0, 0, 0, 0]);
        capability(&mut bytes, 99, 48, &[]);
        capability(&mut bytes, 1, 0, &range_body(2, &[(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)]));
        let info = IommuInfo::parse(&bytes).unwrap();
        assert_eq!(info.granule(), 4096);
        assert_eq!(info.maps_left, Some(65_535));
        assert_eq!(info.usable(), [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]);
    }

    #[test]
    fn an_old_kernel_says_nothing_and_the_interrupt_window_is_still_left_out() {
        let info = IommuInfo::parse(&fixed(1, 0x1000, 0)).unwrap();
        assert_eq!((info.maps_left, &info.ranges), (None, &None));
        assert!(info.usable().iter().all(|range| !range.contains(&0xfee0_0000)));
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_refused() {
        let mut circle = fixed(2, 0, 24);
        capability(&mut circle, 2, 24, &[]);
        let mut count = fixed(2, 0, 24);
        capability(&mut count, 1, 0, &range_body(u32::MAX, &[(0, 1)]));
        let mut cut = fixed(2, 0, 24);
        capability(&mut cut, 1, 0, &[1, 0]);
        let mut backwards = fixed(2, 0, 8);
        capability(&mut backwards, 1, 0, &[]);
        for bytes in [circle, count, cut, backwards, fixed(2, 0, 24), fixed(2, 0, u32::MAX), fixed(1, 0, 0), vec![1, 2, 3], vec![]] {
            assert!(IommuInfo::parse(&bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_read_outside(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first in 0..220_u32) {
            if bytes.len() >= INFO_LEN {
                bytes[4..8].copy_from_slice(&3_u32.to_ne_bytes());
                bytes[16..20].copy_from_slice(&first.to_ne_bytes());
            }
            let _ = IommuInfo::parse(&bytes);
        }
    }
}
