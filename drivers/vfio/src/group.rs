//! The groups that this process has open.
//!
//! The kernel opens a group once, for one container, and its devices share one IOMMU table. So the second NIC of a group gets what
//! the first has.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vfio_ioctls::VfioContainer;

use crate::address::PciAddress;
use crate::space::VfioSpace;

/// An open group; closed when its last device is.
pub(crate) struct OpenGroup {
    number: u32,
    pub(crate) container: Arc<VfioContainer>,
    devices: Mutex<BTreeSet<PciAddress>>,
}

/// A device of an open group. Its drop tells the space, before the kernel takes the maps back.
pub(crate) struct Claim {
    group: Arc<OpenGroup>,
    address: PciAddress,
}

/// What this process has open. The lock is held while a device is opened.
#[derive(Default)]
pub(crate) struct OpenGroups(Vec<(Weak<OpenGroup>, Weak<VfioSpace>)>);

static OPEN: Mutex<OpenGroups> = Mutex::new(OpenGroups(Vec::new()));

impl OpenGroups {
    pub(crate) fn lock() -> MutexGuard<'static, Self> {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Group `number`, when it is open.
    pub(crate) fn find(&self, number: u32) -> Option<Arc<OpenGroup>> {
        self.0.iter().filter_map(|(group, _)| group.upgrade()).find(|group| group.number == number)
    }

    /// The space of a group's devices, when there is one.
    pub(crate) fn space(&self, group: &Arc<OpenGroup>) -> Option<Arc<VfioSpace>> {
        self.0.iter().find(|(known, _)| known.as_ptr() == Arc::as_ptr(group)).and_then(|(_, space)| space.upgrade())
    }

    pub(crate) fn remember(&mut self, group: &Arc<OpenGroup>, space: &Arc<VfioSpace>) {
        self.0.retain(|(known, _)| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(group));
        self.0.push((Arc::downgrade(group), Arc::downgrade(space)));
    }
}

impl OpenGroup {
    pub(crate) fn new(number: u32, container: Arc<VfioContainer>) -> Arc<Self> {
        Arc::new(Self { number, container, devices: Mutex::default() })
    }

    /// A device of this group, for one user; `None` when it has one.
    pub(crate) fn claim(self: &Arc<Self>, address: PciAddress) -> Option<Claim> {
        let free = self.devices().insert(address);
        free.then(|| Claim { group: Arc::clone(self), address })
    }

    fn devices(&self) -> MutexGuard<'_, BTreeSet<PciAddress>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.group.devices().remove(&self.address);
    }
}
