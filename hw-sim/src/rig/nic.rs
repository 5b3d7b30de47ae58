//! The NIC models that a rig can have.

use std::fmt;
use std::str::FromStr;

use super::virtio::VirtioOptions;
use crate::wire::{HostWire, WireConfig};

/// A NIC model of QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Model {
    /// Intel 82540EM, 8086:100e: one queue each way, INTx only.
    #[default]
    E1000,
    /// Intel 82574L, 8086:10d3: two queues each way, MSI-X.
    E1000e,
    /// virtio-net as a modern PCI device, 1af4:1041.
    VirtioNet,
}

impl Model {
    /// All models, in the order in which they are listed to users.
    pub const ALL: [Self; 3] = [Self::E1000, Self::E1000e, Self::VirtioNet];

    /// The name in addresses: `e1000`, `e1000e`, `virtio-net`.
    pub fn name(self) -> &'static str {
        match self {
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::VirtioNet => "virtio-net",
        }
    }

    /// The start of QEMU's `-device`.
    pub(crate) fn device_option(self, virtio: &VirtioOptions) -> String {
        match self {
            Self::E1000 | Self::E1000e => self.name().to_owned(),
            Self::VirtioNet => virtio.device_option(),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many queue pairs a NIC has; the number that was asked for as an error, where the wire has fewer.
pub(crate) fn queue_pairs(model: Model, virtio: &VirtioOptions, wire: &WireConfig) -> Result<u16, u16> {
    match (model, virtio.queue_pairs(), wire) {
        (Model::VirtioNet, pairs @ 2.., WireConfig::Host(HostWire::Tap { .. })) => Ok(pairs),
        (Model::VirtioNet, pairs @ 2.., _) => Err(pairs),
        _ => Ok(1),
    }
}

/// A name that no [`Model`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rig has no NIC model {0:?}; it has e1000, e1000e and virtio-net")]
pub struct ParseModelError(String);

impl FromStr for Model {
    type Err = ParseModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|model| model.name() == text).ok_or_else(|| ParseModelError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_models_agree() {
        for model in Model::ALL {
            assert_eq!(model.to_string().parse(), Ok(model));
        }
    }

    #[test]
    fn the_error_lists_the_names() {
        let error = "ne2000".parse::<Model>().unwrap_err().to_string();
        assert!(Model::ALL.iter().all(|model| error.contains(model.name())), "{error}");
    }
}
