//! Figures as people read them, and tables of them.

use std::collections::BTreeMap;

use pagewire::file::WindowStatistics;
use pagewire::send::{CopyReason, Report};
use pagewire::tcp::StackReport;

/// Lines of a name and a value, the names in one column.
pub fn render(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary prefix, and exactly.
pub fn bytes(bytes: u64) -> String {
    match indicatif::HumanBytes(bytes).to_string() {
        _ if bytes < 1024 => format!("{bytes} B"),
        short => format!("{short} ({} bytes)", grouped(bytes)),
    }
}

/// Bits a second with a decimal prefix.
pub fn rate(bits_per_second: f64) -> String {
    let (value, unit) = match bits_per_second {
        rate if rate >= 1e9 => (rate / 1e9, "Gbit/s"),
        rate if rate >= 1e6 => (rate / 1e6, "Mbit/s"),
        rate => (rate / 1e3, "kbit/s"),
    };
    format!("{value:.1} {unit}")
}

/// A send's report.
pub fn send_rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("sent", bytes(report.bytes)),
        ("gathered by the NIC", bytes(report.bytes_gathered)),
        ("copied by the CPU", copied(report.bytes_copied, &report.copy_reasons)),
        ("frames", grouped(report.frames)),
        ("descriptors", grouped(report.descriptors)),
        ("doorbells", doorbells(report.doorbells, report.frames)),
        ("windows", windows(&report.windows)),
        ("file kept by", report.stability.clone()),
        ("time", format!("{:.3} s, {}", report.seconds, rate(report.bits_per_second()))),
    ];
    if let Some(tcp) = report.tcp {
        rows.insert(1, ("acknowledged", bytes(tcp.acknowledged)));
        rows.insert(2, ("sent again", bytes(tcp.retransmitted)));
    }
    if report.tags_written > 0 {
        rows.push(("VLAN tags", tags(report.tags_written)));
    }
    if report.frames_lost > 0 || report.resets > 0 {
        rows.push(("frames lost", lost(report.frames_lost, report.resets)));
    }
    rows.push(("stopped", report.stopped.to_string()));
    rows
}

/// What a TCP stack did.
pub fn stack_rows(report: &StackReport) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("acknowledged", bytes(report.acknowledged)),
        ("gathered by the NIC", bytes(report.bytes_gathered)),
        ("copied by the CPU", copied(report.bytes_copied, &report.copy_reasons)),
        ("own bytes", bytes(report.bytes_program)),
        ("sent again", bytes(report.retransmitted)),
        ("frames", grouped(report.frames)),
        ("descriptors", grouped(report.descriptors)),
        ("doorbells", doorbells(report.doorbells, report.frames)),
        ("segments received", grouped(report.segments)),
        ("windows", windows(&report.windows)),
    ];
    if report.tags_written > 0 {
        rows.push(("VLAN tags", tags(report.tags_written)));
    }
    if report.resets > 0 {
        rows.push(("frames lost", lost(report.frames_lost, report.resets)));
    }
    rows
}

fn lost(frames: u64, resets: u64) -> String {
    let frames = grouped(frames);
    if resets == 0 { frames } else { format!("{frames} (the NIC was reset, {} times)", grouped(resets)) }
}

fn tags(written: u64) -> String {
    format!("{} written by the CPU (the NIC inserts none)", grouped(written))
}

fn copied(sum: u64, by_reason: &BTreeMap<CopyReason, u64>) -> String {
    let reasons: Vec<String> = by_reason.iter().map(|(reason, bytes)| format!("{}: {}", reason_text(*reason), grouped(*bytes))).collect();
    if reasons.is_empty() { bytes(sum) } else { format!("{}: {}", bytes(sum), reasons.join("; ")) }
}

fn doorbells(doorbells: u64, frames: u64) -> String {
    let each = if doorbells > 0 { frames as f64 / doorbells as f64 } else { 0.0 };
    format!("{} ({each:.1} frames each)", grouped(doorbells))
}

fn windows(windows: &WindowStatistics) -> String {
    format!("{} mapped, {} hit, {} evicted", windows.mapped, windows.hits, windows.evicted)
}

fn reason_text(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::PartialLastPage => "partial last page",
        CopyReason::NoGather => "the NIC does not gather",
        CopyReason::NoChecksumOffload => "the NIC computes no checksum",
        CopyReason::Stream => "a stream has no pages",
        CopyReason::NotMappable => "the file could not be mapped",
        CopyReason::BelowThreshold => "below the copy threshold",
        CopyReason::NoWindow => "no room for another window",
        CopyReason::FileChanging => "the file is about to change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(bytes(1000), "1000 B");
        assert_eq!(bytes(67_109_064), "64.00 MiB (67,109,064 bytes)");
        assert_eq!(rate(1_234_567_890.0), "1.2 Gbit/s");
    }

    #[test]
    fn a_table_has_its_values_in_one_column() {
        assert_eq!(render(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
