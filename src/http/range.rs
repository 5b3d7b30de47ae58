//! The Range field (RFC 9110, 14).

use std::ops::Range;

/// The most ranges in one answer: a request for more is answered with the whole file, as RFC 9110 (14.2) allows.
const MAX_RANGES: usize = 32;

/// Which bytes of a file are asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them: no range, one that cannot be understood, or so many that the whole is cheaper.
    All,
    /// These, one at least, none empty.
    Ranges(Vec<Range<u64>>),
    /// None that the file has.
    Unsatisfiable,
}

/// What `field` asks of a file of `size` bytes.
pub fn parse(field: &str, size: u64) -> Wanted {
    let Some(set) = field.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes")).map(|(_, set)| set) else {
        return Wanted::All;
    };
    let mut ranges = Vec::new();
    let mut specs = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        specs += 1;
        match parse_one(spec, size) {
            None => return Wanted::All,
            Some(range) if range.is_empty() => {}
            Some(range) => ranges.push(range),
        }
        if specs > MAX_RANGES {
            return Wanted::All;
        }
    }
    if specs == 0 {
        return Wanted::All;
    }
    // Ranges that overlap are a way to ask for more than there is (RFC 9110, 17.15).
    let asked = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end - range.start));
    match ranges.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::Ranges(ranges),
        _ if asked > size => Wanted::All,
        _ => Wanted::Ranges(ranges),
    }
}

/// `None`: not a range. Empty: one that the file does not have.
fn parse_one(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(size.saturating_sub(suffix)..size);
    }
    let first = number(first)?;
    let end = if last.is_empty() { size } else { number(last)?.saturating_add(1).min(size) };
    if !last.is_empty() && number(last)? < first {
        return None;
    }
    Some(first.min(end)..end)
}

/// A decimal number; one that is too large for any file is the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        let some = |ranges: &[(u64, u64)]| Wanted::Ranges(ranges.iter().map(|(start, end)| *start..*end).collect());
        for (field, expected) in [
            ("bytes=0-499", some(&[(0, 500)])),
            ("bytes=500-999", some(&[(500, 1000)])),
            ("bytes=-500", some(&[(9500, 10000)])),
            ("bytes=9500-", some(&[(9500, 10000)])),
            ("bytes=0-0,-1", some(&[(0, 1), (9999, 10000)])),
            ("bytes= 0-0 , 5-6 ,", some(&[(0, 1), (5, 7)])),
            ("bytes=9999-20000", some(&[(9999, 10000)])),
            ("bytes=-20000", some(&[(0, 10000)])),
            ("bytes=0-99999999999999999999999", some(&[(0, 10000)])),
            ("bytes=10000-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=20000-1,0-1", Wanted::All),
            ("bytes=5-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=0-,0-", Wanted::All),
        ] {
            assert_eq!(parse(field, 10000), expected, "{field}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse(&format!("bytes={}", "0-0,".repeat(40)), 10000), Wanted::All);
    }
}
