//! A comparison: what the guests measured, and what the receiver saw.

use std::fmt;

use serde::Serialize;

use super::measured::{Driver, Measured};
use super::sink::Received;

/// The figures. Serializes as one JSON object.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub nic: String,
    pub wire: String,
    pub protocol: String,
    /// Bytes of the file, and how often it was sent while it was measured.
    pub bytes: u64,
    pub passes: u32,
    pub cpu: String,
    pub kernel: String,
    pub kernel_iommu: bool,
    pub rows: Vec<Row>,
}

/// One way.
#[derive(Debug, Serialize)]
pub struct Row {
    pub way: String,
    pub driver: Driver,
    pub instructions_per_kib: Option<f64>,
    pub at_work_per_kib: Option<f64>,
    pub calls_per_mib: Option<f64>,
    pub copied_per_kib: Option<f64>,
    /// Sends whose hash was right at the receiver, of how many.
    pub right: usize,
    pub received: usize,
    /// Why there are no figures, or why they cannot be believed.
    pub failed: Option<String>,
}

impl Row {
    /// `least` sends have to have arrived.
    pub fn new(measured: Measured, received: &[Received], least: usize) -> Self {
        let right = received.iter().filter(|received| received.right).count();
        let wrong = right < received.len() || received.len() < least;
        let failed = measured.failed.clone().or_else(|| {
            wrong.then(|| format!("of {} sends that arrived, {least} at least were due, {right} had the right content", received.len()))
        });
        Self {
            instructions_per_kib: measured.instructions_per_kib(),
            at_work_per_kib: measured.at_work_per_kib(),
            calls_per_mib: measured.calls_per_mib(),
            copied_per_kib: measured.copied_per_kib(),
            way: measured.way,
            driver: measured.driver,
            right,
            received: received.len(),
            failed,
        }
    }

    /// It was measured, and all arrived.
    pub fn is_right(&self) -> bool {
        self.failed.is_none()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nic, wire, protocol, bytes, passes, cpu, kernel, kernel_iommu, rows } = self;
        let size = indicatif::HumanBytes(*bytes);
        writeln!(
            out,
            "{protocol} over {nic} on {wire}, a file of {size} in memory, {passes} passes after the first; Linux {kernel}, -cpu {cpu}"
        )?;
        let width = rows.iter().map(|row| row.way.len()).max().unwrap_or(0);
        writeln!(
            out,
            "\n{:<width$}  {:>16}  {:>12}  {:>16}  {:>16}  {:>8}",
            "", "instructions/KiB", "(in loop)", "system calls/MiB", "bytes copied/KiB", "hashes"
        )?;
        let figure = |figure: Option<f64>, digits: usize| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"));
        for row in rows {
            let hashes = if row.is_right() { format!("{} right", row.right) } else { "WRONG".to_owned() };
            let (all, at_work) = (figure(row.instructions_per_kib, 1), figure(row.at_work_per_kib, 1));
            let (calls, copied) = (figure(row.calls_per_mib, 2), figure(row.copied_per_kib, 1));
            writeln!(out, "{:<width$}  {all:>16}  {at_work:>12}  {calls:>16}  {copied:>16}  {hashes:>8}", row.way)?;
        }
        writeln!(out)?;
        let mut failures: Vec<(&str, String)> = Vec::new();
        for row in rows {
            if let Some(why) = &row.failed {
                match failures.last_mut().filter(|(last, _)| last == why) {
                    Some((_, ways)) => *ways += &format!(", {}", row.way),
                    None => failures.push((why, row.way.clone())),
                }
            }
        }
        for (why, ways) in failures {
            writeln!(out, "{ways}: {why}")?;
        }
        // Nobody says when a datagram has arrived.
        let end = if protocol == "udp" { "the last send's return" } else { "the receiver's close" };
        writeln!(
            out,
            "instructions: of the guest, user and kernel, by its clock (icount), from opening the socket to {end}, less idle time (/proc/timer_list)"
        )?;
        writeln!(out, "(in loop): of these, in turns of pagewire's send loop that got on; the rest is opening, waiting, interrupts")?;
        writeln!(out, "system calls: the kernel's ways counted at each call; pagewire's by strace, in sends of their own")?;
        writeln!(
            out,
            "bytes copied: the kernel's as its calls returned and its completions told (- where they do not), pagewire's by its own count"
        )?;
        if !kernel_iommu {
            writeln!(out, "The kernel's guest has no IOMMU.")?;
        }
        if wire == "user" {
            writeln!(
                out,
                "QEMU's user network takes neither checksums nor segmentation off the sender: run it as root for a TAP interface."
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::compare::measured::Calls;

    pub fn comparison() -> Comparison {
        let right = [Received { bytes: 1 << 20, right: true }; 3];
        let kernel = Measured {
            bytes: 1 << 20,
            instructions: 1_106_000,
            calls: Some(Calls { calls: 32, bytes: 2 << 20 }),
            copied: Some(0),
            ..Measured::new("sendfile", Driver::Kernel)
        };
        let uring = Measured { copied: None, way: "SEND_ZC <&>".into(), ..kernel.clone() };
        let failed = Measured { failed: Some("no such call".into()), ..Measured::new("splice", Driver::Kernel) };
        let ours = Measured { driver: Driver::Pagewire, way: "warm".into(), instructions: 60_000, at_work: Some(50_000), ..kernel.clone() };
        let row = |measured, received: &[Received]| Row::new(measured, received, 3);
        Comparison {
            nic: "virtio-net".into(),
            wire: "tap".into(),
            protocol: "tcp".into(),
            bytes: 1 << 20,
            passes: 2,
            cpu: "max".into(),
            kernel: "6.1".into(),
            kernel_iommu: true,
            rows: vec![row(kernel, &right), row(uring, &right), row(failed, &[]), row(ours, &right)],
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_way_and_says_where_nothing_is_known() {
        let text = comparison().to_string();
        let words =
            |way: &str| text.lines().find(|line| line.starts_with(way)).map(|line| line[15..].split_whitespace().collect::<Vec<_>>());
        assert_eq!(words("sendfile").unwrap(), ["1080.1", "-", "16.00", "0.0", "3", "right"], "{text}");
        assert_eq!(words("SEND_ZC").unwrap()[3], "-");
        assert_eq!(words("splice").unwrap(), ["-", "-", "-", "-", "WRONG"]);
        assert_eq!(words("warm").unwrap(), ["58.6", "48.8", "16.00", "0.0", "3", "right"]);
        assert!(text.contains("splice: no such call\n") && !text.contains("user network"), "{text}");
    }

    #[test]
    fn a_row_whose_content_was_wrong_or_missing_at_the_receiver_is_no_success() {
        let measured = Measured { bytes: 1024, instructions: 5, ..Measured::new("sendfile", Driver::Kernel) };
        let (right, wrong) = (Received { bytes: 1, right: true }, Received { bytes: 1, right: false });
        assert!(Row::new(measured.clone(), &[right, right], 2).is_right());
        assert!(!Row::new(measured.clone(), &[right], 2).is_right());
        let row = Row::new(measured, &[right, wrong], 2);
        assert!(!row.is_right() && (row.right, row.received) == (1, 2));
    }

    #[test]
    fn the_json_has_every_figure() {
        let json = serde_json::to_value(comparison()).unwrap();
        assert_eq!(json["rows"][0]["way"], "sendfile");
        assert_eq!(json["rows"][0]["driver"], "kernel");
        assert_eq!(json["rows"][0]["calls_per_mib"], 16.0);
        assert_eq!(json["rows"][1]["copied_per_kib"], serde_json::Value::Null);
        assert_eq!((&json["rows"][3]["right"], &json["rows"][2]["failed"]), (&3.into(), &"no such call".into()));
    }
}
