//! What a stack did, honestly.

use std::collections::BTreeMap;

use serde::Serialize;

use super::frame::Account;
use crate::file::WindowStatistics;
use crate::send::CopyReason;

/// What was done since the stack was made. Serializes as one JSON object; sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StackReport {
    /// Connections that peers opened, and that this side opened.
    pub accepted: u64,
    /// As `accepted`.
    pub opened: u64,
    /// Connections that there are now, those included that only wait for late packets.
    pub connections: u64,
    /// SYNs that found a full backlog, or all connections taken.
    pub dropped: u64,
    /// Connections that did not end by both sides closing them.
    pub failed: u64,
    /// Bytes of all streams that peers acknowledged.
    pub acknowledged: u64,
    /// File bytes that the device read from the page cache itself, retransmissions included.
    pub bytes_gathered: u64,
    /// File bytes that the CPU copied.
    pub bytes_copied: u64,
    /// Of these, how many for which reason.
    pub copy_reasons: BTreeMap<CopyReason, u64>,
    /// Bytes of the program that were sent: heads and the like.
    pub bytes_program: u64,
    /// Bytes that were sent again.
    pub retransmitted: u64,
    /// Bytes that peers sent.
    pub received: u64,
    /// Segments that arrived.
    pub segments: u64,
    /// Frames posted, ACKs and answers to ARP included. A frame that the NIC segments counts once.
    pub frames: u64,
    /// Their descriptors.
    pub descriptors: u64,
    /// Doorbells rung for them.
    pub doorbells: u64,
    /// How many times the device was reset, since it had to be, and how many frames were lost by that. Connections send again what was lost.
    pub resets: u64,
    /// As `resets`.
    pub frames_lost: u64,
    /// 802.1Q tags that the CPU wrote into headers, since the NIC inserts none.
    pub tags_written: u64,
    /// What became of windows.
    pub windows: WindowStatistics,
}

impl StackReport {
    /// Counts copied bytes.
    pub(super) fn copied(&mut self, bytes: u64, reason: CopyReason) {
        if bytes > 0 {
            self.bytes_copied += bytes;
            *self.copy_reasons.entry(reason).or_default() += bytes;
        }
    }

    /// Counts a frame that was posted.
    pub(super) fn posted(&mut self, account: &Account, again: bool) {
        self.bytes_gathered += account.gathered;
        self.bytes_program += account.program;
        self.copied(account.partial_page, CopyReason::PartialLastPage);
        if let Some((reason, bytes)) = account.copied {
            self.copied(bytes, reason);
        }
        if again {
            self.retransmitted += account.bytes();
        }
    }
}
