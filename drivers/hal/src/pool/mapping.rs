//! Where a space has a pool.

use std::ptr::NonNull;
use std::sync::Arc;

use super::Core;
use crate::segment::Domain;
use crate::space::{DmaSpace, Mapping};

/// Where one space has a pool. Clones share it; the pool is unmapped when the last is dropped, so queues drop theirs after they stopped.
#[derive(Clone)]
pub struct PoolMapping(Arc<Attached>);

/// A pool, by where its shared part is. Only compared. No other pool gets the place while the pool is attached anywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolId(pub(super) usize);

struct Attached {
    /// Keeps the shared part, so that the [`PoolId`] stays this pool's own.
    core: NonNull<Core>,
    domain: Domain,
    base: u64,
    mapping: Option<Mapping>,
    space: Arc<dyn DmaSpace>,
}

// SAFETY: `core` is only compared, and released by an atomic count.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl PoolMapping {
    /// The caller has counted the attachment, which ends with this.
    pub(super) fn new(core: NonNull<Core>, domain: Domain, base: u64, mapping: Mapping, space: Arc<dyn DmaSpace>) -> Self {
        Self(Arc::new(Attached { core, domain, base, mapping: Some(mapping), space }))
    }

    pub(crate) fn id(&self) -> PoolId {
        PoolId(self.0.core.as_ptr() as usize)
    }

    /// The domain of the pool's segments.
    pub fn pool(&self) -> Domain {
        self.0.domain
    }

    /// The domain of the space.
    pub fn space(&self) -> Domain {
        self.0.space.domain()
    }

    /// The bus address that the addresses of the pool's segments are added to, which may be negative.
    pub(crate) fn base(&self) -> u64 {
        self.0.base
    }

    /// From one buffer to the next, in bytes.
    pub(crate) fn stride(&self) -> isize {
        // SAFETY: the attachment keeps the core.
        unsafe { self.0.core.as_ref() }.stride
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // As with DmaMemory: what cannot be unmapped stays mapped, and the space counts it.
            let _ = self.space.unmap(mapping);
        }
        Core::release(self.core, -1);
    }
}
