//! From segments to bus addresses, for one queue.

use crate::pool::PoolMapping;
use crate::segment::{Domain, Segment};
use crate::space::DmaSpace;

/// What a queue may be given: segments of its own space, and buffers of the pools that are attached to it.
pub struct AddressMap {
    space: Domain,
    pools: Vec<(Domain, u64)>,
    attached: Vec<PoolMapping>,
}

impl AddressMap {
    /// For a queue of a device in `space`; no pool yet.
    pub fn new(space: &dyn DmaSpace) -> Self {
        Self { space: space.domain(), pools: Vec::new(), attached: Vec::new() }
    }

    /// Adds a pool. Returns whether it is attached to this queue's space.
    #[must_use]
    pub fn attach(&mut self, pool: PoolMapping) -> bool {
        let own = pool.space() == self.space;
        if own && !self.pools.iter().any(|(domain, _)| *domain == pool.pool()) {
            self.pools.push((pool.pool(), pool.base()));
            self.attached.push(pool);
        }
        own
    }

    /// The bus address of a segment; `None` when it is of another space or of a pool that is not attached here.
    #[inline(always)]
    pub fn resolve(&self, segment: &Segment<'_>) -> Option<u64> {
        if segment.domain() == self.space {
            return Some(segment.address());
        }
        self.pools.iter().find(|(domain, _)| *domain == segment.domain()).map(|(_, base)| base + segment.address())
    }
}
