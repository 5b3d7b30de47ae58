//! Which packets are for this station, and which queue they go to (5.1.6.5.1 to 5.1.6.5.3, 5.1.6.5.6, 5.1.6.5.7).

use super::hash;
use super::state::State;

impl State {
    /// Whether a frame passes the filters; it has an Ethernet header.
    pub(super) fn passes(&self, frame: &[u8]) -> bool {
        let control = &self.control;
        if control.promiscuous {
            return true;
        }
        if frame[12..14] == [0x81, 0]
            && let Some(vlans) = &control.vlans
        {
            let Some(tag) = frame.get(14..16) else { return false };
            if !vlans.contains(&(u16::from_be_bytes([tag[0], tag[1]]) & 0xfff)) {
                return false;
            }
        }
        let destination = &frame[..6];
        if destination == [0xff; 6] {
            return !control.no_broadcast;
        }
        if destination[0] & 1 != 0 {
            let listed = control.multicast.iter().any(|mac| mac.0 == *destination);
            return !control.no_multicast && (control.all_multicast || listed);
        }
        let listed = control.unicast.iter().any(|mac| mac.0 == *destination);
        !control.no_unicast && (control.all_unicast || self.mac.0 == *destination || listed)
    }

    /// The pair that a frame goes to, and its hash (value and report), if it has one.
    pub(super) fn steer(&self, frame: &[u8]) -> (u16, Option<(u32, u16)>) {
        let Some(hashing) = &self.control.hashing else { return (0, None) };
        let hash = hash::hash(frame, hashing.types, &hashing.key);
        let pair = match (hash, hashing.table.len()) {
            (_, 0) => 0,
            (None, _) => hashing.unclassified,
            (Some((value, _)), entries) => hashing.table[value as usize & (entries - 1)],
        };
        (pair, hash)
    }
}
