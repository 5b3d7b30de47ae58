//! From buffers and segments to bus addresses, for one queue.

use crate::nic::NicError;
use crate::pool::{Buffer, Pool, PoolId, PoolMapping};
use crate::segment::{Domain, Segment};
use crate::space::DmaSpace;

/// What a queue may be given: segments of its own space, and buffers of the pools that are attached to it.
pub struct AddressMap {
    usual: UsualAddresses,
    attached: Vec<PoolMapping>,
}

/// The addresses that nearly all frames have: the queue's own space, and the pool that was attached first. A copy of it stays in registers.
#[derive(Clone, Copy)]
pub struct UsualAddresses {
    space: Domain,
    pool: Option<PoolId>,
    domain: Domain,
    base: u64,
    stride: isize,
}

impl UsualAddresses {
    /// The bus address of a buffer's bytes; `None` for an unusual pool.
    #[inline(always)]
    pub fn buffer(&self, buffer: &Buffer) -> Option<u64> {
        (self.pool == Some(buffer.pool())).then(|| self.base.wrapping_add_signed(buffer.start_by(self.stride) as i64))
    }

    /// Writes `words` in front of a buffer's bytes; returns the bus address of the first. `None`, and nothing written, for an unusual pool.
    #[inline(always)]
    pub fn prefix<const N: usize>(&self, buffer: &Buffer, words: [u32; N]) -> Option<u64> {
        (self.pool == Some(buffer.pool())).then(|| self.base.wrapping_add_signed(buffer.write_prefix(words)))
    }

    /// The bus address of a segment; `None` when it is neither of the space nor of the first pool.
    #[inline(always)]
    pub fn segment(&self, segment: &Segment<'_>) -> Option<u64> {
        if segment.domain() == self.space {
            Some(segment.address())
        } else if segment.domain() == self.domain {
            Some(self.base.wrapping_add(segment.address()))
        } else {
            None
        }
    }
}

impl AddressMap {
    /// For a queue of a device in `space`; no pool yet.
    pub fn new(space: &dyn DmaSpace) -> Self {
        Self { usual: UsualAddresses { space: space.domain(), pool: None, domain: Domain::NONE, base: 0, stride: 0 }, attached: Vec::new() }
    }

    /// Adds a pool.
    ///
    /// # Errors
    /// [`NicError::ForeignSpace`] for one that is attached to another space than this queue's.
    pub fn attach(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        if pool.space() != self.usual.space {
            return Err(NicError::ForeignSpace);
        }
        if !self.attached.iter().any(|attached| attached.pool() == pool.pool()) {
            if self.attached.is_empty() {
                self.usual =
                    UsualAddresses { pool: Some(pool.id()), domain: pool.pool(), base: pool.base(), stride: pool.stride(), ..self.usual };
            }
            self.attached.push(pool);
        }
        Ok(())
    }

    /// What nearly all frames need.
    #[inline(always)]
    pub fn usual(&self) -> UsualAddresses {
        self.usual
    }

    /// The bus address that [places](crate::Pool::fill) in a pool are added to; `None` when the pool is not attached here.
    pub fn base(&self, pool: &Pool) -> Option<u64> {
        self.attached.iter().find(|attached| attached.id() == pool.id()).map(PoolMapping::base)
    }

    /// The bus address of a buffer's bytes; `None` when its pool is not attached here.
    #[inline]
    pub fn buffer(&self, buffer: &Buffer) -> Option<u64> {
        self.usual.buffer(buffer).or_else(|| self.attached_segment(&buffer.room()))
    }

    /// Writes `words` in front of a buffer's bytes; returns the bus address of the first. `None` when the buffer's pool is not attached here.
    #[inline]
    pub fn prefix<const N: usize>(&self, buffer: &Buffer, words: [u32; N]) -> Option<u64> {
        let data = self.buffer(buffer)?;
        buffer.write_prefix(words);
        Some(data - (N * size_of::<u32>()) as u64)
    }

    /// The bus address of a segment; `None` when it is of another space or of a pool that is not attached here.
    #[inline]
    pub fn segment(&self, segment: &Segment<'_>) -> Option<u64> {
        self.usual.segment(segment).or_else(|| self.attached_segment(segment))
    }

    #[cold]
    fn attached_segment(&self, segment: &Segment<'_>) -> Option<u64> {
        self.attached
            .iter()
            .find(|attached| attached.pool() == segment.domain())
            .map(|attached| attached.base().wrapping_add(segment.address()))
    }
}
