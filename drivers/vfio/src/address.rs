//! Addresses of PCI devices, as `lspci -D` writes them.

use std::fmt;
use std::str::FromStr;

/// Where a PCI device is: domain, bus, device and function.
///
/// ```
/// use pagewire_vfio::PciAddress;
/// let address: PciAddress = "00:03.0".parse()?;
/// assert_eq!(address.to_string(), "0000:00:03.0");
/// assert_eq!("pci:0000:00:03.0".parse(), Ok(address));
/// # Ok::<(), pagewire_vfio::ParseAddressError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// The address of these parts; `None` for a device above 31 or a function above 7.
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// A text that is not a PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a PCI address; write [pci:][DOMAIN:]BUS:DEVICE.FUNCTION in hexadecimal, as lspci does: 0000:00:03.0 or 00:03.0 \
     (device at most 1f, function at most 7)"
)]
pub struct ParseAddressError(String);

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.strip_prefix("pci:").unwrap_or(text)).ok_or_else(|| ParseAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    // Virtual root complexes (VMD) have domains of more than four digits.
    let domain = domain.map_or(Some(0), |domain| hexadecimal(domain, 4..=8))?;
    PciAddress::new(domain, hexadecimal(bus, 2..=2)? as u8, hexadecimal(device, 2..=2)? as u8, hexadecimal(function, 1..=1)? as u8)
}

fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_lspci_does() {
        for (text, expected) in [
            ("0000:00:03.0", "0000:00:03.0"),
            ("03:1F.7", "0000:03:1f.7"),
            ("pci:10000:e1:00.1", "10000:e1:00.1"),
            ("pci:02:00.0", "0000:02:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn anything_else_is_refused_and_the_grammar_shown() {
        for text in ["", "eth0", "0:3.0", "00:03", "00:20.0", "00:03.8", "00:+3.0", "0000:00:00:03.0", "000:00:03.0", "123456789:00:03.0"] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains("BUS:DEVICE.FUNCTION"), "{error}");
        }
    }
}
