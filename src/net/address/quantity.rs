//! Decimal numbers with a unit, exactly: floating point would accept `nan`, and lose bytes of large sizes.

use std::fmt;

/// The number in front of `text`'s unit, times the factor that `unit` gives for it, and nothing lost.
///
/// The error is the reason, without the text.
pub(super) fn parse(text: &str, unit: impl FnOnce(&str) -> Result<u64, String>) -> Result<u64, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("it is empty".into());
    }
    if trimmed.starts_with('-') {
        return Err("it is negative".into());
    }
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, name) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(format!("{:?} is not a decimal number", if number.is_empty() { trimmed } else { number }));
    }
    let factor = u128::from(unit(name.trim_start())?);
    let fraction = fraction.trim_end_matches('0');

    let too_large = || "it is too large".to_owned();
    let mut digits: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits.checked_mul(10).and_then(|digits| digits.checked_add(u128::from(digit - b'0'))).ok_or_else(too_large)?;
    }
    let scaled = digits.checked_mul(factor).ok_or_else(too_large)?;
    let divisor = u32::try_from(fraction.len()).ok().and_then(|places| 10u128.checked_pow(places)).unwrap_or(u128::MAX);
    if scaled % divisor != 0 {
        return Err("it has more decimal places than its unit has parts".into());
    }
    u64::try_from(scaled / divisor).map_err(|_| too_large())
}

/// Writes `value` in the largest of `units` (largest first) that is not larger, with as many decimal places as it takes.
pub(super) fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units.iter().copied().find(|&(_, factor)| factor <= value).unwrap_or(units[units.len() - 1]);
    let places = factor.ilog10() as usize;
    let decimals = format!("{:0places$}", value % factor);
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    write!(f, "{}{point}{decimals}{name}", value / factor)
}
