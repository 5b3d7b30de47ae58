//! What the device has, as the driver knows it.

use std::ops::Range;

use super::Violation;

/// A buffer that was completed before an older one.
const DONE: u16 = 0x8000;

/// The buffers in flight, oldest first, by position. Every place that is no buffer's first, or of a buffer of one descriptor, holds 1, so
/// that such buffers, nearly all, need no record.
pub(crate) struct Flight {
    descriptors: Box<[u16]>,
    mask: u32,
    oldest: u32,
    end: u32,
    /// Buffers of several descriptors among them.
    chains: u32,
    /// Buffers that were completed before older ones.
    early: u32,
}

/// What is in flight, oldest first, by the positions that it takes.
pub(crate) enum InFlightRun {
    /// Buffers of one descriptor.
    Singles(Range<u32>),
    /// Some of several.
    Chains(Range<u32>),
    /// Some that were completed already.
    Mixed,
}

/// Notes buffers of several descriptors.
pub(crate) struct Chains<'f> {
    descriptors: &'f mut [u16],
    mask: u32,
    chains: &'f mut u32,
}

impl Chains<'_> {
    /// The buffer at `position` has so many, more than one.
    #[inline(always)]
    pub fn add(&mut self, position: u32, descriptors: u16) {
        if let Some(place) = self.descriptors.get_mut((position & self.mask) as usize) {
            *place = descriptors;
            *self.chains += 1;
        }
    }
}

impl Flight {
    /// Nothing is in flight in a ring of `size` descriptors, a power of two of at most 32,768.
    pub fn new(size: u16) -> Self {
        Self { descriptors: vec![1; size.into()].into(), mask: u32::from(size) - 1, oldest: 0, end: 0, chains: 0, early: 0 }
    }

    /// The device is stopped and has nothing.
    pub fn clear(&mut self) {
        *self = Self::new((self.mask + 1) as u16);
    }

    /// Descriptors that are free.
    #[inline(always)]
    pub fn free(&self) -> u32 {
        self.mask + 1 - self.end.wrapping_sub(self.oldest)
    }

    /// Everything before position `end` was posted.
    #[inline(always)]
    pub fn post(&mut self, end: u32) {
        self.end = end;
    }

    /// To note buffers of several descriptors.
    #[inline(always)]
    pub fn chains(&mut self) -> Chains<'_> {
        Chains { descriptors: &mut self.descriptors, mask: self.mask, chains: &mut self.chains }
    }

    /// What is in flight.
    #[inline(always)]
    pub fn in_flight(&self) -> InFlightRun {
        match (self.early, self.chains) {
            (0, 0) => InFlightRun::Singles(self.oldest..self.end),
            (0, _) => InFlightRun::Chains(self.oldest..self.end),
            _ => InFlightRun::Mixed,
        }
    }

    /// How many descriptors the buffer at a position has, none of those in flight having been completed before an older one.
    #[inline(always)]
    pub fn descriptors(&self, position: u32) -> u32 {
        self.descriptors.get((position & self.mask) as usize).map_or(1, |place| (*place).into())
    }

    /// The oldest buffer's place, by which the device names it.
    #[inline(always)]
    fn oldest_id(&self) -> u32 {
        self.oldest & self.mask
    }

    /// Takes the oldest `count` buffers; returns their descriptors.
    ///
    /// # Errors
    /// When there are not so many.
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> Result<u32, Violation> {
        if self.chains > 0 {
            return self.take_chains(count);
        }
        if count > self.end.wrapping_sub(self.oldest) {
            return Err(self.too_many(count));
        }
        self.oldest = self.oldest.wrapping_add(count);
        Ok(count)
    }

    fn take_chains(&mut self, count: u32) -> Result<u32, Violation> {
        let first = self.oldest;
        for _ in 0..count {
            if self.oldest == self.end {
                return Err(self.too_many(count));
            }
            self.step();
        }
        Ok(self.oldest.wrapping_sub(first))
    }

    /// Takes the oldest buffer, which there is; returns its descriptors.
    #[inline(always)]
    fn step(&mut self) -> u16 {
        let place = &mut self.descriptors[(self.oldest & self.mask) as usize];
        let descriptors = *place & !DONE;
        self.early -= u32::from(*place & DONE != 0);
        self.chains -= u32::from(descriptors > 1);
        *place = 1;
        self.oldest = self.oldest.wrapping_add(descriptors.into());
        descriptors
    }

    /// Takes the oldest buffers up to the one that the device names; returns (buffers, descriptors).
    ///
    /// # Errors
    /// When it is not in flight.
    #[inline(always)]
    pub fn take_through(&mut self, id: u32) -> Result<(u32, u32), Violation> {
        if self.chains > 0 {
            return self.take_chains_through(id);
        }
        let ahead = self.check(id)?;
        self.oldest = self.oldest.wrapping_add(ahead + 1);
        Ok((ahead + 1, ahead + 1))
    }

    fn take_chains_through(&mut self, id: u32) -> Result<(u32, u32), Violation> {
        self.find(id)?;
        let (first, mut buffers) = (self.oldest, 0);
        loop {
            let last = self.oldest_id() == id;
            self.step();
            buffers += 1;
            if last {
                return Ok((buffers, self.oldest.wrapping_sub(first)));
            }
        }
    }

    /// The device has used buffer `id`, in any order. Returns its descriptors, and how many buffers are complete with all before them.
    ///
    /// # Errors
    /// When it is not in flight.
    #[inline(always)]
    pub fn complete(&mut self, id: u32) -> Result<(u16, u32), Violation> {
        if id == self.oldest_id() && self.oldest != self.end && self.early == 0 {
            return Ok((self.step(), 1));
        }
        self.complete_any(id)
    }

    #[inline(never)]
    fn complete_any(&mut self, id: u32) -> Result<(u16, u32), Violation> {
        self.find(id)?;
        let place = &mut self.descriptors[id as usize];
        let descriptors = *place;
        if descriptors & DONE != 0 {
            return Err(Violation(format!("buffer {id} was used twice")));
        }
        *place |= DONE;
        self.early += 1;
        let mut complete = 0;
        while self.oldest != self.end && self.descriptors[self.oldest_id() as usize] & DONE != 0 {
            self.step();
            complete += 1;
        }
        Ok((descriptors, complete))
    }

    /// How far behind the oldest a place in flight is.
    #[inline(always)]
    fn check(&self, id: u32) -> Result<u32, Violation> {
        let ahead = id.wrapping_sub(self.oldest) & self.mask;
        if id > self.mask || ahead >= self.end.wrapping_sub(self.oldest) {
            return Err(self.not_in_flight(id));
        }
        Ok(ahead)
    }

    /// Whether a buffer begins there: a device could name a place in the middle of a chain.
    fn find(&self, id: u32) -> Result<(), Violation> {
        let ahead = self.check(id)?;
        let mut at = 0;
        while at < ahead && self.chains > 0 {
            at += u32::from(self.descriptors[(self.oldest.wrapping_add(at) & self.mask) as usize] & !DONE);
        }
        if at > ahead { Err(self.not_in_flight(id)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn not_in_flight(&self, id: u32) -> Violation {
        Violation(format!("it used buffer {id}, which it does not have"))
    }

    #[cold]
    #[inline(never)]
    fn too_many(&self, count: u32) -> Violation {
        Violation(format!("it used {count} buffers, more than it has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers of these descriptors are posted.
    fn flight(size: u16, start: u32, chains: &[u16]) -> Flight {
        let mut flight = Flight::new(size);
        (flight.oldest, flight.end) = (start, start);
        for descriptors in chains {
            let start = flight.end;
            if *descriptors > 1 {
                flight.chains().add(start, *descriptors);
            }
            flight.post(flight.end.wrapping_add(u32::from(*descriptors)));
        }
        flight
    }

    #[test]
    fn buffers_complete_in_order_and_in_any_order() {
        for start in [0, 5, u32::MAX - 2] {
            let place = |steps: u32| start.wrapping_add(steps) & 15;
            let mut all = flight(16, start, &[1, 1, 1]);
            assert_eq!((all.take(2), all.free()), (Ok(2), 15));
            assert!(all.take(2).is_err());
            let mut any = flight(16, start, &[1, 3, 1, 2]);
            assert_eq!(any.complete(place(4)), Ok((1, 0)));
            assert_eq!(any.complete(place(1)), Ok((3, 0)));
            assert_eq!(any.complete(place(0)), Ok((1, 3)));
            assert_eq!(any.free(), 14);
            assert_eq!(any.complete(place(5)), Ok((2, 1)));
            assert_eq!((any.free(), any.chains, any.early), (16, 0, 0));
            assert!(any.descriptors.iter().all(|place| *place == 1));
        }
    }

    #[test]
    fn a_batch_ends_with_the_buffer_that_is_named() {
        let mut flight = flight(8, 6, &[1, 3, 1]);
        assert!(flight.take_through(0).is_err(), "in the middle of a chain");
        assert_eq!(flight.take_through(7), Ok((2, 4)));
        assert_eq!(flight.take_through(2), Ok((1, 1)));
        assert!(flight.take_through(3).is_err());
    }

    #[test]
    fn what_is_not_in_flight_is_refused() {
        let mut flight = flight(8, 0, &[1, 2, 1]);
        for id in [2, 4, 8, u32::MAX] {
            assert!(flight.complete(id).is_err(), "{id}");
            assert!(flight.take_through(id).is_err(), "{id}");
        }
        assert_eq!(flight.complete(3), Ok((1, 0)));
        assert!(flight.complete(3).is_err(), "twice");
        assert!(flight.take(4).is_err());
    }

    #[test]
    fn a_full_ring_has_all_of_its_places_in_flight() {
        let mut flight = flight(4, u32::MAX, &[1, 1, 1, 1]);
        assert_eq!(flight.free(), 0);
        assert_eq!(flight.take_through(2), Ok((4, 4)));
        assert!(flight.complete(3).is_err());
    }
}
