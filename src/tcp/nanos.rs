//! Time inside the engine: nanoseconds in 64 bits, as [`Duration`] arithmetic takes several times the instructions, for every ACK.

use std::ops::{Add, Div, Mul};
use std::time::Duration;

/// A point in time, or a span, of up to 584 years. Sums and products stop at the largest, which stands for never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Nanos(pub u64);

impl Nanos {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    /// A duration; the largest for what is longer.
    #[inline]
    pub const fn of(duration: Duration) -> Self {
        Self(duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64))
    }

    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    #[inline]
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// How long it is after `earlier`; nothing when it is before it.
    #[inline]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add for Nanos {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Mul<u64> for Nanos {
    type Output = Self;

    #[inline]
    fn mul(self, by: u64) -> Self {
        Self(self.0.saturating_mul(by))
    }
}

impl Div<u64> for Nanos {
    type Output = Self;

    #[inline]
    fn div(self, by: u64) -> Self {
        Self(self.0 / by)
    }
}
