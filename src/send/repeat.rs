//! A file that is sent several times over one port: what a send costs when the windows are there.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::run::processor_time;
use super::{Progress, Report, Stop};

/// Several sends of one file. Serializes as one JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Repeated {
    /// Each send.
    pub passes: Vec<Report>,
    /// All of them together.
    pub total: Report,
    /// What those after the first cost; `None` when there are none.
    pub after_first: Option<Cost>,
}

/// What sends cost from the opening of the file to the end of the report: everything that the process and the kernel for it do. In a guest
/// whose clock counts instructions nanoseconds are instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// File bytes sent.
    pub bytes: u64,
    /// Frames that carried them.
    pub frames: u64,
    /// The whole time.
    pub seconds: f64,
    /// Processor time of the process, the kernel's for it included: what looking in vain costs, too, but no sleep.
    pub cpu_seconds: f64,
    /// Time in turns of the loop that got on: [`Report::busy_seconds`], without opening the file and taking the lease.
    pub busy_seconds: f64,
    /// Nanoseconds of `seconds` for 1024 bytes.
    pub ns_per_kib: f64,
    /// Nanoseconds of `cpu_seconds` for 1024 bytes.
    pub cpu_ns_per_kib: f64,
    /// Nanoseconds of `busy_seconds` for 1024 bytes.
    pub busy_ns_per_kib: f64,
}

/// Two readings that a cost lies between.
struct Meter {
    start: Instant,
    processor: Duration,
}

impl Meter {
    fn start() -> Self {
        Self { start: Instant::now(), processor: processor_time() }
    }

    fn cost(&self, reports: &[Report]) -> Cost {
        let cpu = processor_time().saturating_sub(self.processor);
        let mut total = Report::default();
        reports.iter().for_each(|report| total.add(report));
        let seconds = self.start.elapsed().as_secs_f64();
        let per_kib = |seconds: f64| if total.bytes > 0 { seconds * 1e9 / (total.bytes as f64 / 1024.0) } else { 0.0 };
        Cost {
            bytes: total.bytes,
            frames: total.frames,
            seconds,
            cpu_seconds: cpu.as_secs_f64(),
            busy_seconds: total.busy_seconds,
            ns_per_kib: per_kib(seconds),
            cpu_ns_per_kib: per_kib(cpu.as_secs_f64()),
            busy_ns_per_kib: per_kib(total.busy_seconds),
        }
    }
}

/// Sends something `passes` times. `pass` is one send of its own, complete with opening the file, over a port that keeps its windows. Ends with the
/// first that is not complete.
///
/// # Errors
/// What `pass` gives: a send that could not be prepared. What goes wrong in a send is in its report.
pub fn repeat<E>(
    passes: u32,
    mut tell: impl FnMut(Progress),
    mut pass: impl FnMut(&mut dyn FnMut(Progress)) -> Result<Report, E>,
) -> Result<Repeated, E> {
    let mut reports: Vec<Report> = Vec::new();
    let (mut sent, mut meter) = (0, None);
    for number in 0..passes {
        if number == 1 {
            meter = Some(Meter::start());
        }
        let report = pass(&mut |progress| {
            tell(Progress { bytes: sent + progress.bytes, total: progress.total.map(|total| total * u64::from(passes)) });
        })?;
        sent += report.bytes;
        let complete = report.stopped == Stop::Complete;
        reports.push(report);
        if !complete {
            break;
        }
    }
    let after_first = meter.map(|meter| meter.cost(&reports[1..]));
    let mut total = Report::default();
    reports.iter().for_each(|report| total.add(report));
    Ok(Repeated { passes: reports, total, after_first })
}
