//! How much of a file.

use std::fmt;
use std::str::FromStr;

use super::super::NetError;
use super::quantity;

/// A number of bytes, such as an offset or a length in a file.
///
/// Written as bytes, or as a number and a unit: `KiB`, `MiB`, `GiB`, `TiB` with factors of 1024, of which `K`, `M`, `G`, `T` are short
/// forms (as `head -c` and `dd` have them), or `kB`, `MB`, `GB`, `TB` with factors of 1000.
///
/// ```
/// # use pagewire::net::Size;
/// assert_eq!("1.5KiB".parse::<Size>()?.bytes(), 1536);
/// # Ok::<(), pagewire::net::NetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The bytes of a unit.
fn unit(name: &str) -> Result<u64, String> {
    Ok(match name {
        "" | "B" => 1,
        "k" | "K" | "KiB" | "kiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("{name:?} is not a unit of sizes")),
    })
}

impl FromStr for Size {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        quantity::parse(text, unit).map(Self).map_err(|reason| NetError::Size { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Size {
    /// In the largest binary unit that leaves a whole number, otherwise in bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = BINARY.iter().copied().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)).unwrap_or(("", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_bytes_or_have_binary_or_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("4kB", 4000),
            ("1.5MiB", 1_572_864),
            ("2M", 2 << 20),
            ("3MB", 3_000_000),
            ("16G", 16 << 30),
            ("1.000000001GB", 1_000_000_001),
            ("1TiB", 1 << 40),
            ("1TB", 1_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_the_reason_and_the_units() {
        for (text, reason) in [
            ("", "it is empty"),
            ("-4", "negative"),
            ("0x10", "not a unit"),
            ("4Mbit", "not a unit"),
            ("1.5", "decimal places"),
            ("18446744073709551616", "too large"),
            ("16777216TiB", "too large"),
        ] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains("as in 4096 or 1.5GiB"), "{text}: {error}");
        }
    }

    #[test]
    fn a_size_is_shown_in_a_unit_only_when_nothing_is_lost() {
        assert_eq!([0, 4096, 4097, 3 << 30].map(|bytes| Size(bytes).to_string()), ["0", "4KiB", "4097", "3GiB"]);
    }

    proptest! {
        #[test]
        fn a_size_reads_back_from_its_text(bytes: u64, shift in 0..64u32) {
            for bytes in [bytes >> shift, (bytes >> shift) << shift] {
                prop_assert_eq!(Size(bytes).to_string().parse::<Size>().unwrap(), Size(bytes));
            }
        }
    }
}
