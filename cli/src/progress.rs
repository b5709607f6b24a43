//! How far is long work, for somebody who waits?
//!
//! On standard error, and only where that is a terminal; nothing is drawn in JSON mode.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A bar, a spinner, or nothing.
pub struct Progress(ProgressBar);

const BYTES: &str = "{msg:12} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
const SPINNER: &str = "{msg:12} {spinner} {human_pos}";

impl Progress {
    /// Nothing to see.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// `total` bytes to go.
    pub fn bytes(what: &'static str, total: u64, quiet: bool) -> Self {
        Self::bar(what, Some(total), BYTES, quiet)
    }

    /// Nobody knows how many things to do.
    pub fn spinner(what: &'static str, quiet: bool) -> Self {
        Self::bar(what, None, SPINNER, quiet)
    }

    fn bar(what: &'static str, total: Option<u64>, template: &str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// `done` more.
    pub fn advance(&self, done: u64) {
        self.0.inc(done);
    }

    /// `done` of `total` in all.
    pub fn set(&self, what: &str, done: u64, total: u64) {
        if self.0.is_hidden() {
            return;
        }
        self.0.set_message(String::from(what));
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Prints a message without tearing the bar.
    pub fn note(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
