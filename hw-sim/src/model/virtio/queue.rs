//! A virtqueue: what both ring formats have in common.

use std::collections::BTreeSet;
use std::ops::Range;

use hal::virtio::QueueLayout;

use super::chain::{Chain, Chains, Fault, Walk};
use super::descriptor::Raw;
use super::features::Features;
use crate::model::space::Space;

/// When the device wants to be notified; what it told the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Always,
    Never,
    /// When this position is made available.
    At(u64),
}

/// When a device asks to be notified of available buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// Of the next one.
    #[default]
    Next,
    /// Of the one behind so many more, with VIRTIO_F_EVENT_IDX; else as `Next`.
    After(u16),
    /// Never: it looks itself at every step.
    Never,
}

/// How completions lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    None,
    OutOfRange,
    NotInFlight,
    Twice,
    Jump,
}

pub(super) struct Queue {
    pub layout: QueueLayout,
    pub features: Features,
    pub packed: bool,
    /// How many entries (split) or descriptors (packed) the driver has made available, and the device has used.
    pub available: u64,
    pub used: u64,
    /// Split: the last descriptor of the last chain.
    pub last_descriptor: Option<u16>,
    /// Packed: each descriptor as it was last seen or written.
    pub shadow: Vec<Raw>,
    /// Buffers that the device has not looked at, and those that it will never give back.
    pub waiting: Chains,
    pub lost: Vec<Chain>,
    /// The addresses of descriptors, and the identifiers, that the device owns.
    pub owned: BTreeSet<u64>,
    pub ids: BTreeSet<u16>,
    /// What the device published.
    pub wanted: Wanted,
    /// The driver has to notify, and has not.
    pub owed: bool,
    /// The driver has notified, and the device has not looked since.
    pub notified: bool,
    /// Something is so wrong that the device uses the queue no more.
    pub broken: bool,
    /// What `available` was at the last notification.
    pub seen_at_doorbell: u64,
}

impl Queue {
    pub(super) fn new(layout: QueueLayout, features: Features, space: &Space) -> Self {
        let packed = features.contains(Features::RING_PACKED);
        let wanted = if !packed && features.contains(Features::EVENT_IDX) { Wanted::At(0) } else { Wanted::Always };
        let mut queue = Self {
            layout,
            features,
            packed,
            available: 0,
            used: 0,
            last_descriptor: None,
            shadow: Vec::new(),
            waiting: Chains::new(),
            lost: Vec::new(),
            owned: BTreeSet::new(),
            ids: BTreeSet::new(),
            wanted,
            owed: false,
            notified: false,
            broken: false,
            seen_at_doorbell: 0,
        };
        if packed {
            queue.shadow = (0..layout.size).map(|slot| queue.raw(space, slot).unwrap_or_default()).collect();
        }
        queue
    }

    pub(super) fn size(&self) -> u64 {
        self.layout.size.into()
    }

    /// Sizes of the descriptor, driver and device areas in bytes (2.7 and 2.8.10.1).
    pub(super) fn area_sizes(layout: &QueueLayout, packed: bool, event_index: bool) -> [u64; 3] {
        let (size, event) = (u64::from(layout.size), if event_index { 2 } else { 0 });
        if packed { [16 * size, 4, 4] } else { [16 * size, 4 + event + 2 * size, 4 + event + 8 * size] }
    }

    pub(super) fn areas(&self) -> [Range<u64>; 3] {
        let [descriptors, driver, device] = Self::area_sizes(&self.layout, self.packed, self.features.contains(Features::EVENT_IDX));
        let area = |start: u64, len: u64| start..start.saturating_add(len);
        [area(self.layout.descriptors, descriptors), area(self.layout.driver, driver), area(self.layout.device, device)]
    }

    pub(super) fn read_u16(&self, space: &Space, address: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        space.read(address, &mut bytes).ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    /// A new walk along a chain.
    pub(super) fn walk<'a>(&self, space: &'a Space, slots: u64) -> Walk<'a> {
        let chain = Chain { slots, ..Chain::default() };
        Walk { space, features: self.features, packed: self.packed, size: self.layout.size, chain, wrong: Vec::new() }
    }

    /// Sees what the driver has made available since the last look. Returns what is wrong with it.
    pub(super) fn observe(&mut self, space: &Space) -> Vec<String> {
        if self.broken {
            return Vec::new();
        }
        let before = self.available;
        let wrong = if self.packed { self.observe_packed(space) } else { self.observe_split(space) };
        self.owed |= self.triggers(self.wanted, before..self.available);
        wrong
    }

    /// Whether what was made available or used at these positions is an event.
    pub(super) fn triggers(&self, wanted: Wanted, mut positions: Range<u64>) -> bool {
        match wanted {
            Wanted::Always => !positions.is_empty(),
            Wanted::Never => false,
            Wanted::At(at) if self.packed => positions.any(|position| position % (2 * self.size()) == at % (2 * self.size())),
            Wanted::At(at) => positions.any(|position| position as u16 == at as u16),
        }
    }

    /// A chain that the driver made available is now the device's.
    pub(super) fn take_over(&mut self, walk: Walk<'_>, wrong: &mut Vec<String>) {
        let Walk { mut chain, wrong: found, .. } = walk;
        wrong.extend(found);
        if !self.ids.insert(chain.id) {
            wrong.push(format!("{} was made available again before it was used [2.7.13, 2.8.21]", self.what(chain.id)));
            chain.broken = true;
        }
        for (address, _) in &chain.snapshot {
            if !self.owned.insert(*address) {
                wrong.push(format!("the descriptor at {address:#x} is in two chains that the device owns [2.7.13, 2.8.21]"));
                chain.broken = true;
            }
        }
        self.available += chain.slots;
        self.broken |= chain.broken;
        self.waiting.push_back(chain);
    }

    fn what(&self, id: u16) -> String {
        if self.packed { format!("buffer {id}") } else { format!("descriptor {id}") }
    }

    /// Tells the driver when to notify.
    pub(super) fn publish(&mut self, space: &Space, notify: Notify) -> Result<(), Fault> {
        let event_index = self.features.contains(Features::EVENT_IDX);
        self.wanted = match notify {
            Notify::Never if event_index && !self.packed => Wanted::At(self.available.wrapping_sub(1)),
            Notify::Never => Wanted::Never,
            _ if !event_index => Wanted::Always,
            Notify::Next => Wanted::At(self.available),
            Notify::After(more) => Wanted::At(self.available + u64::from(more)),
        };
        let device = self.layout.device;
        let write = |address: u64, value: u16| space.write(address, &value.to_le_bytes()).map_err(|_| (address, 2));
        match (self.packed, self.wanted) {
            (false, Wanted::At(at)) => write(device + 4 + 8 * self.size(), at as u16),
            (false, wanted) => write(device, u16::from(wanted == Wanted::Never)),
            (true, Wanted::At(at)) => {
                write(device, (at % self.size()) as u16 | u16::from(self.wrap(at)) << 15)?;
                write(device + 2, 2)
            }
            (true, wanted) => write(device + 2, u16::from(wanted == Wanted::Never)),
        }
    }

    /// When the driver wants an interrupt; what is wrong with how it says so.
    pub(super) fn driver_wants(&self, space: &Space) -> (Wanted, Option<&'static str>) {
        let event_index = self.features.contains(Features::EVENT_IDX);
        let driver = self.layout.driver;
        let word = |address| self.read_u16(space, address).unwrap_or(0);
        if !self.packed {
            let flags = word(driver);
            return match flags {
                0 if event_index => (Wanted::At(word(driver + 4 + 2 * self.size()).into()), None),
                0 => (Wanted::Always, None),
                1 if !event_index => (Wanted::Never, None),
                _ if event_index => (Wanted::Always, Some("the flags of the available ring are not 0 with VIRTIO_F_EVENT_IDX [2.7.7.1]")),
                _ => (Wanted::Always, Some("the flags of the available ring are neither 0 nor 1 [2.7.7.1]")),
            };
        }
        match word(driver + 2) {
            0 => (Wanted::Always, None),
            1 => (Wanted::Never, None),
            2 if event_index => {
                let event = word(driver);
                let (offset, wrap) = (u64::from(event & 0x7fff), event >> 15 != 0);
                if offset >= self.size() {
                    return (Wanted::Always, Some("the offset of the driver's event suppression is beyond the ring [2.8.14]"));
                }
                (Wanted::At(offset + if wrap { 0 } else { self.size() }), None)
            }
            2 => (Wanted::Always, Some("event suppression asks for a descriptor without VIRTIO_F_EVENT_IDX [2.8.10]")),
            _ => (Wanted::Always, Some("the driver's event suppression has reserved flags set [2.8.10, 2.8.14]")),
        }
    }

    /// Gives buffers back, all of them at once. `together`: one entry stands for all, as VIRTIO_F_IN_ORDER allows.
    pub(super) fn give_back(&mut self, space: &Space, done: &[(Chain, u32)], together: bool, lie: Lie) -> Result<(), Fault> {
        for (chain, _) in done {
            self.ids.remove(&chain.id);
            chain.snapshot.iter().for_each(|(address, _)| {
                self.owned.remove(address);
            });
        }
        let mut entries: Vec<(u16, u32, u64)> = done.iter().map(|(chain, len)| (chain.id, *len, chain.slots)).collect();
        if together && let Some((id, len, _)) = entries.last().copied() {
            entries = vec![(id, len, entries.iter().map(|(.., slots)| slots).sum())];
        }
        match lie {
            Lie::None | Lie::Jump => {}
            Lie::OutOfRange => entries.iter_mut().for_each(|entry| entry.0 = u16::MAX),
            Lie::NotInFlight => {
                let free = (0..self.layout.size).rev().find(|id| !self.ids.contains(id) && done.iter().all(|(chain, _)| chain.id != *id));
                entries.iter_mut().for_each(|entry| entry.0 = free.unwrap_or(u16::MAX));
            }
            Lie::Twice => entries = entries.iter().flat_map(|entry| [*entry, *entry]).collect(),
        }
        let used = self.used + done.iter().map(|(chain, _)| chain.slots).sum::<u64>();
        let written = if self.packed { self.use_packed(space, &entries, lie) } else { self.use_split(space, &entries, lie) };
        // A lie changes what the driver sees, not what the device knows.
        self.used = used;
        written
    }
}
