//! A histogram of durations: eight buckets an octave, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Buckets in each doubling: a percentile is right within an eighth.
const PER_OCTAVE: u64 = 8;
/// Octaves from 8 microseconds on: up to 12 days.
const OCTAVES: u64 = 37;
const BUCKETS: usize = (PER_OCTAVE * (OCTAVES + 1)) as usize;

/// Durations in microseconds.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_us: AtomicU64::new(0),
        }
    }
}

/// The bucket of a duration: itself below 8, then its octave and the three bits after its first.
fn bucket(us: u64) -> usize {
    if us < PER_OCTAVE {
        return us as usize;
    }
    let octave = u64::from(us.ilog2()) - 3;
    let place = (us >> octave) & (PER_OCTAVE - 1);
    ((octave + 1) * PER_OCTAVE + place).min(BUCKETS as u64 - 1) as usize
}

/// The first duration that is too long for a bucket.
fn end_us(bucket: usize) -> u64 {
    let (octave, place) = (bucket as u64 / PER_OCTAVE, bucket as u64 % PER_OCTAVE);
    match octave {
        0 => place + 1,
        _ => (PER_OCTAVE + place + 1) << (octave - 1),
    }
}

impl Latencies {
    pub(super) fn add(&self, time: Duration) {
        let us = time.as_micros() as u64;
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// All durations together.
    pub(super) fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    fn counts(&self) -> Vec<u64> {
        self.buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect()
    }

    /// Percentiles, and the buckets that are not empty as pairs of their end and their count: with
    /// those of an earlier moment, the percentiles of the time between.
    pub(super) fn json(&self) -> Value {
        let counts = self.counts();
        let total: u64 = counts.iter().sum();
        let percentile = |share: f64| {
            let rank = (total as f64 * share).ceil() as u64;
            let mut sum = 0;
            let found = counts.iter().position(|count| {
                sum += count;
                sum >= rank && rank > 0
            });
            found.map(end_us)
        };
        let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        json!({
            "count": total,
            "sum": self.sum_us(),
            "p50": percentile(0.5), "p90": percentile(0.9), "p99": percentile(0.99),
            "buckets": filled.map(|(i, count)| [end_us(i), *count]).collect::<Vec<_>>(),
        })
    }

    /// Sum in seconds, count, and counts by upper bound in seconds: an octave each.
    pub(super) fn prometheus(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let counts = self.counts();
        let mut buckets: Vec<(f64, u64)> = counts
            .chunks(PER_OCTAVE as usize)
            .enumerate()
            .take(24)
            .map(|(octave, counts)| {
                let end = end_us((octave + 1) * PER_OCTAVE as usize - 1);
                (end as f64 * 1e-6, counts.iter().sum())
            })
            .collect();
        let beyond = counts[24 * PER_OCTAVE as usize..].iter().sum();
        buckets.push((f64::MAX, beyond));
        let sum = self.sum_us() as f64 * 1e-6;
        (sum, counts.iter().sum(), buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for us in (0..5000).chain([1 << 20, (1 << 40) - 1]) {
            let i = bucket(us);
            assert!(us < end_us(i), "{us}");
            assert!(i == 0 || us >= end_us(i - 1), "{us}");
        }
    }

    #[test]
    fn percentiles_are_right_within_an_eighth() {
        let latencies = Latencies::default();
        for us in 1..=1000 {
            latencies.add(Duration::from_micros(us));
        }
        let json = latencies.json();
        for (name, expected) in [("p50", 500.0), ("p90", 900.0), ("p99", 990.0)] {
            let found = json[name].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 0.126, "{name}: {found}");
        }
        let (sum, count, buckets) = latencies.prometheus();
        assert_eq!(
            (count, buckets.iter().map(|b| b.1).sum::<u64>()),
            (1000, 1000)
        );
        assert!((sum - 0.5005).abs() < 1e-9);
    }
}
