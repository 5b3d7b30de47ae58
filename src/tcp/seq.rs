//! Sequence numbers, and the positions that they stand for.

use std::fmt;
use std::ops::Add;

/// A sequence number: 32 bits, counted modulo 2^32 (RFC 9293 3.4).
///
/// The engine itself counts in *positions*, u64 that never wrap: the SYN is at 0, the first byte of the stream at 1, the FIN behind the last
/// byte. A sequence number is a position plus the initial sequence number; [`position`](Self::position) is the way back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this number is behind `earlier`, negative when it is before it. Right as long as the two are less than 2^31 apart.
    #[inline]
    pub fn since(self, earlier: Seq) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// The position that this number stands for, where position 0 has the number `origin`: the one that is closest to the position `near`.
    /// `None` when that would be before position 0.
    #[inline]
    pub fn position(self, origin: Seq, near: u64) -> Option<u64> {
        near.checked_add_signed(self.since(origin + near).into())
    }
}

impl Add<u64> for Seq {
    type Output = Seq;

    /// The number `distance` further on, modulo 2^32.
    #[inline]
    fn add(self, distance: u64) -> Seq {
        Seq(self.0.wrapping_add(distance as u32))
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Seq({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_wrap_and_positions_do_not() {
        let origin = Seq(u32::MAX - 1);
        assert_eq!(origin + 3, Seq(1));
        assert_eq!(Seq(1).since(origin), 3);
        assert_eq!(Seq(1).position(origin, 0), Some(3));
        assert_eq!((origin + (1 << 40)).position(origin, (1 << 40) - 7), Some(1 << 40));
        assert_eq!(Seq(9).position(Seq(10), 0), None);
    }

    proptest! {
        #[test]
        fn a_position_survives_the_way_through_its_number(origin: u32, near in 0..u64::MAX / 2, away in -(1i64 << 31) + 1..1 << 31) {
            let origin = Seq(origin);
            if let Some(position) = near.checked_add_signed(away) {
                prop_assert_eq!((origin + position).position(origin, near), Some(position));
            }
        }

        #[test]
        fn the_distance_undoes_the_addition(start: u32, distance in 0..1u64 << 31) {
            prop_assert_eq!((Seq(start) + distance).since(Seq(start)) as i64, distance as i64);
            prop_assert_eq!(Seq(start).since(Seq(start) + distance) as i64, -(distance as i64));
        }
    }
}
