//! Instructions of a guest whose clock counts them.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// Where the kernel says for how long the processors idled, in nanoseconds. /proc/uptime has it in hundredths of a second only.
const TIMERS: &str = "/proc/timer_list";

/// The readings at the beginning.
pub struct Meter {
    start: Instant,
    idle: Duration,
}

impl Meter {
    pub fn start() -> io::Result<Self> {
        let idle = idle()?;
        Ok(Self { start: Instant::now(), idle })
    }

    /// Instructions since then that were not idle; the reading of [`TIMERS`] is not among them, but for its beginning.
    pub fn stop(self) -> io::Result<u64> {
        let all = self.start.elapsed();
        Ok(all.saturating_sub(idle()?.saturating_sub(self.idle)).as_nanos() as u64)
    }
}

fn idle() -> io::Result<Duration> {
    let text = fs::read_to_string(TIMERS)?;
    parse(&text)
        .ok_or_else(|| io::Error::other(format!("{TIMERS} does not say for how long the processor idled: this kernel has no NO_HZ")))
}

/// The sum over all processors.
fn parse(text: &str) -> Option<Duration> {
    let mut times = text.lines().filter_map(|line| line.trim_start().strip_prefix(".idle_sleeptime")).map(|rest| {
        let number = rest.trim_start_matches([' ', ':']).strip_suffix("nsecs")?;
        number.trim().parse().ok().map(Duration::from_nanos)
    });
    let first = times.next()??;
    times.try_fold(first, |sum, time| Some(sum + time?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_all_processors_are_added() {
        let cpu = "  .idle_waketime : 3 nsecs\n  .idle_sleeptime : 1500000123 nsecs\n  .iowait_sleeptime: 7 nsecs\n";
        assert_eq!(parse(cpu), Some(Duration::from_nanos(1_500_000_123)));
        assert_eq!(parse(&format!("cpu: 0\n{cpu}cpu: 1\n{cpu}")), Some(Duration::from_nanos(3_000_000_246)));
        assert_eq!(parse("no such line"), None);
        assert_eq!(parse("  .idle_sleeptime : soon nsecs\n"), None);
    }
}
