//! All connections of a stack: found by addresses and ports, at a cost that does not depend on how many there are.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::link::Link;

/// A connection, by the ends that are not the same for all: the peer, and the own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub peer: SocketAddr,
    pub local_port: u16,
}

impl Hash for Ends {
    /// Few and whole words, which the hasher takes fastest. It is keyed, so that peers cannot choose ends which fall together.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.peer.port()) << 16 | u64::from(self.local_port);
        match self.peer.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 32 | ports),
            IpAddr::V6(ip) => {
                let ip = ip.to_bits();
                state.write_u64((ip >> 64) as u64);
                state.write_u64(ip as u64);
                state.write_u64(ports);
            }
        }
    }
}

/// Names a connection, and no later one at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub place: u32,
    generation: u32,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    index: HashMap<Ends, u32>,
    /// What was found last: segments of one connection mostly come together.
    last: Option<(Ends, Name)>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Boxed, so that free places are small.
    link: Option<Box<Link>>,
}

impl Table {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The connection with these ends.
    #[inline]
    pub fn find(&mut self, ends: Ends) -> Option<Name> {
        match self.last {
            Some((last, name)) if last == ends => Some(name),
            _ => self.look_up(ends),
        }
    }

    fn look_up(&mut self, ends: Ends) -> Option<Name> {
        let place = *self.index.get(&ends)?;
        let name = Name { place, generation: self.slots.get(place as usize)?.generation };
        self.last = Some((ends, name));
        Some(name)
    }

    /// Adds a connection, whose ends no other one has.
    pub fn insert(&mut self, link: Link) -> Name {
        let ends = Ends { peer: link.peer, local_port: link.engine.local_port() };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[place as usize];
        slot.link = Some(Box::new(link));
        self.index.insert(ends, place);
        Name { place, generation: slot.generation }
    }

    /// Takes a connection out.
    pub fn remove(&mut self, name: Name) -> Option<Box<Link>> {
        let slot = self.slots.get_mut(name.place as usize).filter(|slot| slot.generation == name.generation)?;
        let link = slot.link.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.last = self.last.filter(|(_, last)| *last != name);
        self.free.push(name.place);
        self.index.remove(&Ends { peer: link.peer, local_port: link.engine.local_port() });
        Some(link)
    }

    #[inline]
    pub fn get(&self, name: Name) -> Option<&Link> {
        self.slots.get(name.place as usize).filter(|slot| slot.generation == name.generation)?.link.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, name: Name) -> Option<&mut Link> {
        self.slots.get_mut(name.place as usize).filter(|slot| slot.generation == name.generation)?.link.as_deref_mut()
    }

    /// The connection that is at a place now.
    pub fn at(&self, place: u32) -> Option<Name> {
        let slot = self.slots.get(place as usize)?;
        slot.link.is_some().then_some(Name { place, generation: slot.generation })
    }

    /// The names of all.
    pub fn names(&self) -> Vec<Name> {
        (0..self.slots.len() as u32).filter_map(|place| self.at(place)).collect()
    }
}
