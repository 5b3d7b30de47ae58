//! What a send did, honestly.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::file::WindowStatistics;

/// Why the CPU had to copy file bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyReason {
    /// The space cannot map the last page of a file that does not end with a page (the rig).
    PartialLastPage,
    /// The NIC does not gather: header and data are merged.
    NoGather,
    /// The NIC does not compute the checksum: the CPU has to read the data.
    NoChecksumOffload,
    /// The source is a stream, which has no pages to map.
    Stream,
    /// The file could not be mapped for the device.
    NotMappable,
    /// To map so few bytes costs more than to copy them ([`UdpOptions::copy_below`](crate::send::UdpOptions::copy_below)).
    BelowThreshold,
    /// There was no room to map it: the windows that there may be are held for bytes that are on their way.
    NoWindow,
    /// The file is about to change: what is on its way is kept until it has arrived.
    FileChanging,
}

/// How a send ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// It has not.
    #[default]
    Running,
    /// All was sent.
    Complete,
    /// The user or the program ended it.
    Interrupted,
    /// The file changed, or somebody wants to change it.
    FileChanged(String),
    /// An error ended it.
    Failed(String),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Complete => f.write_str("complete"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::FileChanged(how) => write!(f, "file changed: {how}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl Serialize for Stop {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was done. Serializes as one JSON object; sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// File bytes that were handed to the device.
    pub bytes: u64,
    /// Frames that carried them.
    pub frames: u64,
    /// Descriptors of these frames.
    pub descriptors: u64,
    /// Doorbells rung for them.
    pub doorbells: u64,
    /// File bytes that the device read from the page cache itself.
    pub bytes_gathered: u64,
    /// File bytes that the CPU copied.
    pub bytes_copied: u64,
    /// Of these, how many for which reason.
    pub copy_reasons: BTreeMap<CopyReason, u64>,
    /// What became of windows.
    pub windows: WindowStatistics,
    /// From the first doorbell to the last completion.
    pub seconds: f64,
    /// Of the time that [`run`](crate::send::run()) took, how much it was at work: in turns of its loop that got on, all that they do included
    /// (the kernel's part, reading the clock), but not the turns that found nothing to do. 0 where a loop of your own takes the steps.
    pub busy_seconds: f64,
    /// Processor time of this process meanwhile, the kernel's for it included, and waiting too, as far as it is not sleep. 0 as above.
    pub cpu_seconds: f64,
    /// How it ended.
    pub stopped: Stop,
    /// How the file was kept from changing: `lease`, or `trust` and why.
    pub stability: String,
    /// Posted frames that the device did not complete.
    pub frames_lost: u64,
    /// How many times the device was reset meanwhile, since it had to be.
    pub resets: u64,
    /// 802.1Q tags that the CPU wrote into headers, since the NIC inserts none.
    pub tags_written: u64,
    /// What TCP adds; of a send over UDP there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpFigures>,
}

/// What a connection did. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TcpFigures {
    /// Bytes that the peer has acknowledged.
    pub acknowledged: u64,
    /// Bytes that were sent again. They count in [`Report::bytes`] too.
    pub retransmitted: u64,
}

impl Report {
    /// Counts copied bytes.
    pub(crate) fn copied(&mut self, bytes: u64, reason: CopyReason) {
        if bytes > 0 {
            self.bytes_copied += bytes;
            *self.copy_reasons.entry(reason).or_default() += bytes;
        }
    }

    /// Adds what another send did. How it ended and how its file was kept are taken from it: of several sends, the last.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.frames += other.frames;
        self.descriptors += other.descriptors;
        self.doorbells += other.doorbells;
        self.bytes_gathered += other.bytes_gathered;
        other.copy_reasons.iter().for_each(|(reason, bytes)| self.copied(*bytes, *reason));
        self.windows.mapped += other.windows.mapped;
        self.windows.hits += other.windows.hits;
        self.windows.evicted += other.windows.evicted;
        self.seconds += other.seconds;
        self.busy_seconds += other.busy_seconds;
        self.cpu_seconds += other.cpu_seconds;
        self.stopped = other.stopped.clone();
        self.stability.clone_from(&other.stability);
        self.frames_lost += other.frames_lost;
        self.resets += other.resets;
        self.tags_written += other.tags_written;
        if let Some(other) = other.tcp {
            let tcp = self.tcp.get_or_insert_default();
            tcp.acknowledged += other.acknowledged;
            tcp.retransmitted += other.retransmitted;
        }
    }

    /// Bits of file a second.
    pub fn bits_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_of_json() {
        let mut report = Report { bytes: 5, stopped: Stop::FileChanged("truncated".into()), ..Report::default() };
        report.copied(3, CopyReason::PartialLastPage);
        report.copied(2, CopyReason::PartialLastPage);
        report.copied(0, CopyReason::Stream);
        let json = serde_json::to_string(&report).unwrap();
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["copy_reasons"], serde_json::json!({"partial-last-page": 5}));
        assert_eq!(value["windows"], serde_json::json!({"mapped": 0, "hits": 0, "evicted": 0}));
        assert_eq!(value["stopped"], "file changed: truncated");
    }

    #[test]
    fn sends_add_up() {
        let mut total = Report::default();
        for stopped in [Stop::Complete, Stop::Interrupted] {
            let mut one = Report { bytes: 7, frames: 2, seconds: 0.5, stopped, ..Report::default() };
            one.copied(3, CopyReason::Stream);
            one.windows.hits = 1;
            total.add(&one);
        }
        assert_eq!((total.bytes, total.frames, total.bytes_copied, total.copy_reasons[&CopyReason::Stream]), (14, 4, 6, 6));
        assert_eq!((total.windows.hits, total.seconds, total.stopped), (2, 1.0, Stop::Interrupted));
    }
}
