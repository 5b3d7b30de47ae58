//! How fast to send.

use std::fmt;
use std::str::FromStr;

use super::super::NetError;
use super::quantity;

/// A rate in bits per second, at least 1.
///
/// Written as a number and a unit: `bit`, `kbit`, `Mbit`, `Gbit`, `Tbit` for bits and `B`, `kB`, `MB`, `GB`, `TB` for bytes, each a second
/// (`/s` may follow), with factors of 1000 as line rates have them.
///
/// ```
/// # use pagewire::net::Rate;
/// let rate: Rate = "25MB/s".parse()?;
/// assert_eq!(rate.bits_per_second(), 200_000_000);
/// assert_eq!(rate.to_string(), "200Mbit");
/// # Ok::<(), pagewire::net::NetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

const UNITS: [(&str, u64); 5] = [("Tbit", 1_000_000_000_000), ("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// A rate of `bits` per second; `None` for 0, at which nothing would ever be sent.
    pub const fn new(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// Bits per second, at least 1.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

/// The bits of a unit.
fn unit(name: &str) -> Result<u64, String> {
    let name = name.strip_suffix("/s").unwrap_or(name);
    let bytes = |factor: u64| Ok(8 * factor);
    match name {
        "" => Err("it has no unit".into()),
        "B" => bytes(1),
        "kB" | "KB" => bytes(1_000),
        "MB" => bytes(1_000_000),
        "GB" => bytes(1_000_000_000),
        "TB" => bytes(1_000_000_000_000),
        // tc means bytes by mbps, everyone else bits: refused, not guessed.
        _ if name.ends_with('b') || name.ends_with("bps") => Err(format!("{name:?} could be bits or bytes")),
        _ => UNITS
            .iter()
            .find(|(unit, _)| unit.eq_ignore_ascii_case(name))
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("{name:?} is not a unit of rates")),
    }
}

impl FromStr for Rate {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let error = |reason: String| NetError::Rate { text: text.to_owned(), reason };
        let nothing = || error("at a rate of 0 nothing is ever sent; leave it out to send without a bound".into());
        // Nobody misses its unit.
        if text.trim() == "0" {
            return Err(nothing());
        }
        Self::new(quantity::parse(text, unit).map_err(error)?).ok_or_else(nothing)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quantity::write(f, self.0, &UNITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_written_in_bits_or_bytes_a_second() {
        for (text, bits) in [
            ("200Mbit", 200_000_000),
            ("200mbit", 200_000_000),
            ("1.5Gbit", 1_500_000_000),
            ("1.5Gbit/s", 1_500_000_000),
            ("64kbit", 64_000),
            ("9600bit", 9_600),
            ("9600 bit", 9_600),
            ("2Tbit", 2_000_000_000_000),
            ("25MB", 200_000_000),
            ("25MB/s", 200_000_000),
            ("1B", 8),
            ("0.5kB", 4_000),
            ("1.50000000000000000000000000Gbit", 1_500_000_000),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().bits_per_second(), bits, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused_with_the_reason_and_the_units() {
        for (text, reason) in [
            ("", "it is empty"),
            ("200", "no unit"),
            ("0Mbit", "nothing is ever sent"),
            ("0.0Gbit", "nothing is ever sent"),
            ("-1Mbit", "negative"),
            ("NaNbit", "not a decimal number"),
            ("infbit", "not a decimal number"),
            ("Mbit", "not a decimal number"),
            (".5Mbit", "not a decimal number"),
            ("5.Mbit", "not a decimal number"),
            ("1.2.3Mbit", "not a decimal number"),
            ("1e9bit", "not a unit"),
            ("1Mb", "bits or bytes"),
            ("1mbps", "bits or bytes"),
            ("1MiB", "not a unit"),
            ("0.5bit", "decimal places"),
            ("0.0000000000000000000000000000000000000000000001Gbit", "decimal places"),
            ("20000000Tbit", "too large"),
            ("99999999999999999999999999999999999999999bit", "too large"),
        ] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains("as in 200Mbit or 25MB/s"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_reads_back_from_its_text(bits in 1..=u64::MAX, shift in 0..64u32) {
            let rate = Rate::new((bits >> shift).max(1)).unwrap();
            prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", number in "[0-9.]{0,50}", unit in "[a-zA-Z/]{0,6}") {
            let _ = text.parse::<Rate>();
            let _ = format!("{number}{unit}").parse::<Rate>();
        }
    }
}
