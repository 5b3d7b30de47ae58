//! What the guests found out, one way to send a file after another.

use serde::{Deserialize, Serialize};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// The kernel's driver and its network.
    Kernel,
    /// This program, through VFIO.
    Pagewire,
}

/// What one way took. Printed by the guest, a line of JSON each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub way: String,
    pub driver: Driver,
    /// Bytes sent in the passes that were measured.
    pub bytes: u64,
    /// Instructions from the opening of a connection to its end, of user and kernel, less those that passed while the processor idled.
    pub instructions: u64,
    /// Of these, in turns of the send loop that got on; of this program alone.
    pub at_work: Option<u64>,
    /// System calls and the bytes sent with them.
    pub calls: Option<Calls>,
    /// Bytes that the CPU copied, of `bytes`; `None` where nobody tells.
    pub copied: Option<u64>,
    /// Why there are no figures.
    pub failed: Option<String>,
}

/// System calls, and the bytes that they were for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    pub calls: u64,
    pub bytes: u64,
}

impl Measured {
    /// Nothing yet.
    pub fn new(way: impl Into<String>, driver: Driver) -> Self {
        let (at_work, calls, copied, failed) = Default::default();
        Self { way: way.into(), driver, bytes: 0, instructions: 0, at_work, calls, copied, failed }
    }

    fn per_kib(&self, number: u64) -> Option<f64> {
        (self.failed.is_none() && self.bytes > 0).then(|| number as f64 * 1024.0 / self.bytes as f64)
    }

    pub fn instructions_per_kib(&self) -> Option<f64> {
        self.per_kib(self.instructions)
    }

    pub fn at_work_per_kib(&self) -> Option<f64> {
        self.per_kib(self.at_work?)
    }

    pub fn copied_per_kib(&self) -> Option<f64> {
        self.per_kib(self.copied?)
    }

    pub fn calls_per_mib(&self) -> Option<f64> {
        let Calls { calls, bytes } = self.calls.filter(|calls| calls.bytes > 0)?;
        self.failed.is_none().then(|| calls as f64 * f64::from(1 << 20) / bytes as f64)
    }
}

/// The content of the file that is sent: the guest writes it, and the host knows what has to arrive.
pub fn content(len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut content);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_a_unit_and_there_are_none_of_a_failure() {
        let mut row = Measured {
            bytes: 2 << 20,
            instructions: 4096,
            at_work: Some(2048),
            calls: Some(Calls { calls: 6, bytes: 4 << 20 }),
            copied: Some(1 << 20),
            ..Measured::new("sendfile", Driver::Kernel)
        };
        let all = |row: &Measured| [row.instructions_per_kib(), row.at_work_per_kib(), row.calls_per_mib(), row.copied_per_kib()];
        assert_eq!(all(&row), [2.0, 1.0, 1.5, 512.0].map(Some));
        row.failed = Some("no".into());
        assert_eq!(all(&row), [None; 4]);
        assert_eq!(all(&Measured::new("splice", Driver::Kernel)), [None; 4], "nothing was sent");
    }

    #[test]
    fn the_content_is_the_same_each_time_and_a_longer_one_begins_alike() {
        let content_12345 = content(12_345);
        assert_eq!(content_12345.len(), 12_345);
        assert_eq!(content(20_000)[..12_345], content_12345);
        assert_ne!(content_12345[..4096], content_12345[4096..8192]);
    }
}
