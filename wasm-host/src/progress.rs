//! Progress for people: on a terminal only, on the standard error.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar of `len` steps. Where the standard error is no terminal it draws nothing.
pub fn bar(len: u64, message: impl Into<String>) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {msg}");
    let bar = ProgressBar::new(len)
        .with_style(style.expect("the template is well-formed"))
        .with_message(message.into());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
