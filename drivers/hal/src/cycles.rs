//! The processor's own clock, for measurements: it costs a few instructions where the system's clock costs a hundred.
#![allow(unsafe_code)]

/// The time-stamp counter (Intel SDM 3B, 18.17): it runs at a constant rate, which is about the processor's nominal frequency. Other processors'
/// counters would need system registers, so there it is the monotonic clock, in nanoseconds. Only differences mean something, and only on one
/// processor.
#[inline(always)]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has RDTSC, which reads a counter and nothing else. A system that forbids it (CR4.TSD) does so at a process' own
    // request (`PR_SET_TSC`), which nothing here makes.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    fn it_goes_on_with_time() {
        let (start, before) = (Instant::now(), super::now());
        while start.elapsed() < Duration::from_millis(2) {}
        let cycles = super::now().wrapping_sub(before);
        // No processor has less than 10 MHz or more than 100 GHz.
        assert!((20_000..100_000_000_000).contains(&cycles), "{cycles}");
    }
}
