//! Waits that end.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long QEMU may take for anything: a start, a reply, a hot-plug.
pub(crate) const QEMU: Duration = Duration::from_secs(10);

/// Asks `question` every millisecond until it is answered; `None` when `deadline` passes first. Asks at least once.
pub(crate) fn poll_until<T>(deadline: Instant, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until one of `descriptors` is readable (or closed), at most until `deadline`. It may also return earlier: look at them.
pub(crate) fn wait_readable(descriptors: &[BorrowedFd<'_>], deadline: Instant) {
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    // A duration beyond what the kernel takes is as good as for ever.
    let timeout = Timespec::try_from(left).ok();
    // A signal (EINTR) ends the wait early, which the callers' loops allow.
    let _ = poll(&mut polled, timeout.as_ref());
}
