//! How much memory this process may pin.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// `CAP_IPC_LOCK` (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// Two windows of files, of 4 MiB each, which a frame may lie across.
const WINDOWS: u64 = 8 << 20;
/// For rings, packet buffers and windows: what a send with the usual settings locks, and some room.
const ENOUGH: u64 = 16 << 20;

/// The limit on pinned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// RLIMIT_MEMLOCK in bytes; `None`: no limit.
    pub limit: Option<u64>,
    /// CAP_IPC_LOCK: the limit does not count.
    pub privileged: bool,
    /// What is locked and pinned already.
    pub locked: u64,
}

impl Memlock {
    /// That of this process, now.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limit = getrlimit(Resource::Memlock).current;
        Self::from_status(&status, limit)
    }

    fn from_status(status: &str, limit: Option<u64>) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let capabilities = field("CapEff").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(0);
        let privileged = capabilities >> CAP_IPC_LOCK & 1 == 1;
        // type1 counts its pins among the locked pages.
        let locked = field("VmLck").and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        Self { limit, privileged, locked: locked.saturating_mul(1024) }
    }

    /// How many more bytes can be pinned.
    pub fn left(&self) -> u64 {
        self.limit.filter(|_| !self.privileged).map_or(u64::MAX, |limit| limit.saturating_sub(self.locked))
    }

    /// What to do when `len` bytes more are wanted and refused. The limit that it names is enough for everything that a send needs, not for
    /// these bytes alone: the next refusal would only ask for more.
    pub(crate) fn remedy(&self, len: u64) -> String {
        let Some(limit) = self.limit else {
            return "the kernel has no memory for it".into();
        };
        // The kernel asks for the capability outside of all user namespaces, which this process cannot.
        let doubt = if self.privileged {
            "the kernel has no memory for it; or this is the root of a container, whom the limit concerns too: "
        } else {
            ""
        };
        let need = self.locked.saturating_add(len).saturating_add(WINDOWS).max(ENOUGH).div_ceil(1024);
        format!(
            "{doubt}at most {} KiB may be locked and {} KiB are; a limit of {need} KiB is enough for rings, packet buffers and windows of files \
             together (more keeps more of a file mapped): `ulimit -l {need}` (or unlimited) in the shell that starts it (root may raise it \
             there), LimitMEMLOCK={need}K in a systemd unit, or for good `USER - memlock {need}` in /etc/security/limits.d/pagewire.conf and a \
             new login",
            limit / 1024,
            self.locked / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpagewire\nVmPin:\t       0 kB\nVmLck:\t    4096 kB\nCapEff:\t0000000000000000\n";

    #[test]
    fn what_is_locked_leaves_less() {
        let memlock = Memlock::from_status(STATUS, Some(8 << 20));
        assert_eq!((memlock.locked, memlock.left()), (4 << 20, 4 << 20));
        let text = memlock.remedy(6 << 20);
        assert!(
            text.contains("at most 8192 KiB")
                && text.contains("ulimit -l 18432")
                && text.contains("LimitMEMLOCK=18432K")
                && text.contains("limits.d"),
            "{text}"
        );
        // The first ring is small; what comes behind it is not.
        let text = Memlock { limit: Some(0), privileged: false, locked: 0 }.remedy(4096);
        assert!(text.contains("a limit of 16384 KiB is enough"), "{text}");
    }

    #[test]
    fn the_capability_passes_the_limit() {
        let status = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t0000000000004000");
        let memlock = Memlock::from_status(&status, Some(8 << 20));
        assert_eq!(memlock.left(), u64::MAX);
        assert!(memlock.remedy(1).contains("root of a container"));
        assert_eq!(Memlock::from_status("", Some(8 << 20)).left(), 8 << 20);
    }
}
