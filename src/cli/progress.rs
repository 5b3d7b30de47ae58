//! A progress bar, where there is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on the error stream, for `total` bytes or for an unknown number. Nothing shows without a terminal, or when `quiet`.
pub fn bar(total: Option<u64>, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let template = match total {
        Some(_) => "{bar:30} {bytes:>12} of {total_bytes}  {bytes_per_sec}  {eta} left",
        None => "{spinner} {bytes:>12}  {bytes_per_sec}  {elapsed}",
    };
    let bar = ProgressBar::with_draw_target(total, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    // The ticks are a thread's, which would wake up for nobody.
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
