//! The lines at a log's end that no checkpoint has signed.
//!
//! Whoever can write the file can write them without the key. A process signs what it finds when it opens
//! a log, and from then on a checkpoint comes before there are many lines or they are old: more than that
//! was not left by one.

use serde::Serialize;

use super::line::Line;

/// How far checkpoints are apart, at most: what a log was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    /// Lines.
    pub lines: u64,
    /// Seconds.
    pub seconds: u64,
}

impl Default for Apart {
    fn default() -> Self {
        Self {
            lines: super::log::DEFAULT_CHECKPOINT_LINES,
            seconds: super::log::DEFAULT_CHECKPOINT_SECONDS,
        }
    }
}

/// Seconds that lines may be older than a checkpoint is late: they are queued before they are written, and
/// a slow disk holds up both.
const SLACK_SECONDS: u64 = 60;

/// What follows the last checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unsigned {
    /// How many lines.
    pub lines: u64,
    /// From the earliest of them to the latest.
    pub milliseconds: u64,
    /// Those whose time cannot be read.
    pub lines_without_time: u64,
    #[serde(skip)]
    times: Option<(u64, u64)>,
}

impl Unsigned {
    /// Adds a line that is not signed.
    pub(super) fn add(&mut self, line: &Line) {
        self.lines += 1;
        match milliseconds_in(&line.body.time) {
            Some(time) => {
                let (earliest, latest) = self.times.unwrap_or((time, time));
                let (earliest, latest) = (earliest.min(time), latest.max(time));
                self.times = Some((earliest, latest));
                self.milliseconds = latest - earliest;
            }
            None => self.lines_without_time += 1,
        }
    }

    /// What signature is missing after `checkpoints` of them, if one is.
    pub(super) fn missing(&self, checkpoints: u64, apart: Apart) -> Option<String> {
        let seconds = self.milliseconds / 1000;
        if checkpoints == 0 {
            Some("no line is signed: no checkpoint is there to check the key with".into())
        } else if self.lines > apart.lines {
            Some(format!(
                "{} lines follow the last signed checkpoint, and there is one every {}",
                self.lines, apart.lines
            ))
        } else if seconds > apart.seconds.saturating_add(SLACK_SECONDS) {
            Some(format!(
                "lines of {seconds} s follow the last signed checkpoint, and there is one every {} s",
                apart.seconds
            ))
        } else if self.lines_without_time > 0 {
            Some("lines follow the last signed checkpoint whose time cannot be read".into())
        } else {
            None
        }
    }
}

/// Milliseconds of a moment as a log has it, `2026-11-21T23:35:04.250Z`, counted from some day long before.
fn milliseconds_in(time: &str) -> Option<u64> {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
    let is_written_so = time.len() == FORM.len()
        && time.bytes().zip(FORM).all(|(found, &form)| match form {
            b'0' => found.is_ascii_digit(),
            _ => found == form,
        });
    let number = |at: std::ops::Range<usize>| time.get(at)?.parse::<u64>().ok();
    if !is_written_so {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Years begin in March here, so that the leap day is a year's last and months need no table.
    let (year, month) = match month {
        3..=12 => (year, month - 3),
        1..=2 => (year.checked_sub(1)?, month + 9),
        _ => return None,
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1000 + number(20..23)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn moments_are_as_far_apart_as_they_were() {
        let at = |seconds| timestamp::of(UNIX_EPOCH + Duration::from_secs(seconds));
        let start = milliseconds_in(&at(0)).unwrap();
        // Around the ends of days, months, years and the leap day.
        for seconds in [
            1,
            86_399,
            951_782_399,
            951_868_800,
            1_767_225_599,
            4_107_542_400,
        ] {
            let found = milliseconds_in(&at(seconds)).unwrap();
            assert_eq!(found - start, seconds * 1000, "{}", at(seconds));
        }
        for bad in [
            "",
            "now",
            "2026-13-01T00:00:00.000Z",
            "2026-01-01T00:00:00.000+",
        ] {
            assert_eq!(milliseconds_in(bad), None, "{bad}");
        }
    }
}
