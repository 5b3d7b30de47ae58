//! What QEMU's virtio-net device offers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Properties of QEMU's `virtio-net-pci` that are on or off.
const SWITCHES: [&str; 20] = [
    "packed",
    "event_idx",
    "indirect_desc",
    "mrg_rxbuf",
    "iommu_platform",
    "disable-legacy",
    "disable-modern",
    "queue_reset",
    "csum",
    "gso",
    "host_tso4",
    "host_tso6",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "ctrl_vq",
    "status",
    "rss",
    "hash",
    "page-per-vq",
];

/// Those that are numbers, and which ones QEMU takes.
const NUMBERS: [(&str, RangeInclusive<u32>); 3] = [("vectors", 0..=2048), ("host_mtu", 68..=65_535), ("rx_queue_size", 256..=1024)];

/// Queue pairs; QEMU takes more, but no TAP interface has as many (the kernel's limit is 256 queues).
const QUEUE_PAIRS: RangeInclusive<u16> = 1..=128;

/// What a virtio-net device offers, in QEMU's words. Unless set it is a modern device with one queue pair and QEMU's choice of all else: split rings,
/// indirect descriptors and event indices.
///
/// ```
/// use pagewire_hw_sim::rig::VirtioOptions;
/// let options = VirtioOptions::default().with("packed", "on")?.with("vectors", "0")?;
/// assert!(VirtioOptions::default().with("colour", "red").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioOptions {
    queue_pairs: u16,
    properties: BTreeMap<&'static str, String>,
}

impl Default for VirtioOptions {
    fn default() -> Self {
        // On the root bus it would be a transitional device (1af4:1000) with a legacy I/O BAR.
        let modern = [("disable-legacy", "on"), ("disable-modern", "off")].map(|(name, value)| (name, value.to_owned()));
        Self { queue_pairs: 1, properties: modern.into() }
    }
}

/// A property that there is not, or a value that it does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VirtioOptionError {
    /// There is no such property.
    #[error("QEMU's virtio-net has no option {0:?} here; it has queues, {known}", known = known())]
    Unknown(String),
    /// The property takes other values.
    #[error("{name}={value:?}: it takes {takes}")]
    Value {
        /// the property
        name: String,
        /// what was given
        value: String,
        /// what it takes
        takes: String,
    },
}

fn known() -> String {
    let numbers = NUMBERS.iter().map(|(name, _)| *name);
    SWITCHES.into_iter().chain(numbers).collect::<Vec<_>>().join(", ")
}

impl VirtioOptions {
    /// With a property of QEMU's `virtio-net-pci`, or `queues`, the number of queue pairs, for which a wire has to have as many.
    ///
    /// # Errors
    /// [`VirtioOptionError`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, VirtioOptionError> {
        let wrong = |takes: String| VirtioOptionError::Value { name: name.to_owned(), value: value.to_owned(), takes };
        let range = |range: &dyn fmt::Debug| wrong(format!("a number, {range:?}").replace("..=", " to "));
        if name == "queues" {
            self.queue_pairs = value.parse().ok().filter(|pairs| QUEUE_PAIRS.contains(pairs)).ok_or_else(|| range(&QUEUE_PAIRS))?;
        } else if let Some(name) = SWITCHES.into_iter().find(|switch| *switch == name) {
            if !matches!(value, "on" | "off") {
                return Err(wrong("on or off".to_owned()));
            }
            self.properties.insert(name, value.to_owned());
        } else if let Some((name, numbers)) = NUMBERS.iter().find(|(number, _)| *number == name) {
            let number: u32 = value.parse().ok().filter(|number| numbers.contains(number)).ok_or_else(|| range(numbers))?;
            self.properties.insert(name, number.to_string());
        } else {
            return Err(VirtioOptionError::Unknown(name.to_owned()));
        }
        Ok(self)
    }

    /// How many queue pairs there are.
    pub fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    /// Behind an IOMMU: the device goes through it, unless the user has decided otherwise.
    pub(crate) fn behind_iommu(mut self) -> Self {
        self.properties.entry("iommu_platform").or_insert_with(|| "on".to_owned());
        self
    }

    /// The value of `-device`, as far as it is about this.
    pub(crate) fn device_option(&self) -> String {
        let mut option = "virtio-net-pci".to_owned();
        for (name, value) in &self.properties {
            option.push_str(&format!(",{name}={value}"));
        }
        if self.queue_pairs > 1 {
            option.push_str(",mq=on");
        }
        option
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(settings: &[(&str, &str)]) -> Result<String, VirtioOptionError> {
        let options = settings.iter().try_fold(VirtioOptions::default(), |options, (name, value)| options.with(name, value))?;
        Ok(options.device_option())
    }

    #[test]
    fn a_modern_device_is_the_default_and_all_else_is_told_to_qemu() {
        assert_eq!(option(&[]).unwrap(), "virtio-net-pci,disable-legacy=on,disable-modern=off");
        let legacy = option(&[("disable-legacy", "off"), ("disable-modern", "on"), ("vectors", "007")]).unwrap();
        assert_eq!(legacy, "virtio-net-pci,disable-legacy=off,disable-modern=on,vectors=7");
        assert!(option(&[("queues", "4")]).unwrap().ends_with(",mq=on"));
        let guest = VirtioOptions::default().behind_iommu().device_option();
        assert!(guest.ends_with(",iommu_platform=on"), "{guest}");
        let without = VirtioOptions::default().with("iommu_platform", "off").unwrap().behind_iommu().device_option();
        assert!(without.ends_with(",iommu_platform=off"), "{without}");
    }

    #[test]
    fn what_qemu_would_not_take_is_refused_with_what_it_takes() {
        for (name, value, says) in [
            ("packed", "yes", "on or off"),
            ("vectors", "2049", "0 to 2048"),
            ("vectors", "1,mac=1", "0 to 2048"),
            ("queues", "0", "1 to 128"),
            ("netdev", "n1", "no option \"netdev\""),
        ] {
            let error = option(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
