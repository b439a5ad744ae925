//! Splitting work over threads.
//!
//! [`Threads`] is a handle on a pool, or on nothing: without the `threads` feature, on one thread
//! or for one chunk, everything runs inline. A call costs no heap allocation. Chunks are taken
//! from a shared counter, so that a slow thread takes fewer of them; which thread computes a chunk
//! is not determined, hence a chunk's result must not depend on it.

#[cfg(feature = "threads")]
mod pool;

use crate::limits;

#[cfg(feature = "threads")]
use std::sync::Arc;
#[cfg(feature = "threads")]
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "threads")]
use std::sync::{Mutex, PoisonError};

/// A handle on worker threads. Clones share them; the last one ends them.
#[derive(Debug, Clone, Default)]
pub struct Threads {
    #[cfg(feature = "threads")]
    pool: Option<Arc<pool::Pool>>,
}

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} threads: {reason}")]
pub struct ThreadsError {
    /// How many were asked for.
    pub count: usize,
    /// What the operating system said.
    pub reason: String,
}

impl Threads {
    /// Only the calling thread.
    pub fn single() -> Threads {
        Threads::default()
    }

    /// The calling thread and `count - 1` workers.
    ///
    /// # Errors
    /// If the operating system does not give the threads, or if `count > 1` in a build without the
    /// feature `threads`.
    pub fn new(count: usize) -> Result<Threads, ThreadsError> {
        if count <= 1 {
            return Ok(Threads::single());
        }
        Threads::start(count)
    }

    #[cfg(feature = "threads")]
    fn start(count: usize) -> Result<Threads, ThreadsError> {
        let pool = pool::Pool::start(count - 1).map_err(|error| ThreadsError {
            count,
            reason: error.to_string(),
        })?;
        Ok(Threads {
            pool: Some(Arc::new(pool)),
        })
    }

    #[cfg(not(feature = "threads"))]
    fn start(count: usize) -> Result<Threads, ThreadsError> {
        Err(ThreadsError {
            count,
            reason: "this build has no threads".into(),
        })
    }

    /// How many chunks can run at the same time; at least 1.
    pub fn count(&self) -> usize {
        #[cfg(feature = "threads")]
        if let Some(pool) = &self.pool {
            return pool.workers() + 1;
        }
        1
    }

    /// Calls `work(i)` once for each `i` in `0..chunks` and returns when all are done. A run that is
    /// to [end](limits::is_stopped) does so here, between two chunks.
    ///
    /// Within such a call, or while another thread is in one on the same handle, everything runs on
    /// the calling thread.
    pub fn for_each(&self, chunks: usize, work: impl Fn(usize) + Sync) {
        #[cfg(feature = "threads")]
        if let (Some(pool), true) = (&self.pool, chunks > 1) {
            let stop = limits::stop();
            let next = AtomicUsize::new(0);
            let take_all = || {
                limits::helping(&stop, || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= chunks || limits::is_stopped() {
                            break;
                        }
                        work(i);
                    }
                });
            };
            if pool.offer(&take_all) {
                // Nobody is to see what was left out.
                return limits::end_if_stopped();
            }
        }
        (0..chunks).for_each(|i| {
            limits::end_if_stopped();
            work(i);
        });
    }

    /// Splits a slice into chunks of `chunk_len` elements (the last may be shorter) and calls
    /// `work(i, chunk)` for each.
    ///
    /// # Panics
    /// If `chunk_len` is 0.
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        #[cfg(feature = "threads")]
        if self.pool.is_some() && data.len() > chunk_len {
            let chunks = Mutex::new(data.chunks_mut(chunk_len).enumerate());
            let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            self.for_each(self.count(), |_| {
                while !limits::is_stopped()
                    && let Some((i, chunk)) = next()
                {
                    work(i, chunk);
                }
            });
            return limits::end_if_stopped();
        }
        for (i, chunk) in data.chunks_mut(chunk_len).enumerate() {
            limits::end_if_stopped();
            work(i, chunk);
        }
    }

    /// How long the pieces should be if `len` elements are split evenly over the threads, none
    /// shorter than `least`, from where on a piece is worth a thread, nor very much longer, so that a run
    /// can end between two, and each a multiple of `multiple` (but the last).
    pub fn piece_len(&self, len: usize, least: usize, multiple: usize) -> usize {
        /// Pieces that are just worth a thread, of which a piece has the work at most.
        const MOST: usize = 256;
        let (least, multiple) = (least.max(1), multiple.max(1));
        let even = len.div_ceil(self.count());
        let piece = even.min(least.saturating_mul(MOST)).max(least);
        piece.div_ceil(multiple) * multiple
    }

    /// Whether this thread is a pool's, not one that calls.
    pub(crate) fn is_helper() -> bool {
        #[cfg(feature = "threads")]
        return pool::is_helper();
        #[cfg(not(feature = "threads"))]
        return false;
    }

    /// Calls `work` once on every thread of the pool and on the calling thread, and sums what it
    /// returns.
    pub(crate) fn sum_over_all_threads(&self, work: impl Fn() -> usize + Sync) -> usize {
        #[cfg(feature = "threads")]
        if let Some(pool) = &self.pool {
            let sum = AtomicUsize::new(0);
            pool.broadcast(&|| {
                sum.fetch_add(work(), Ordering::Relaxed);
            });
            return sum.into_inner();
        }
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn handles() -> Vec<Threads> {
        let mut handles = vec![Threads::single()];
        match Threads::new(3) {
            Ok(threads) => handles.push(threads),
            Err(error) => eprintln!("skipped: {error}"),
        }
        handles
    }

    #[test]
    fn every_chunk_runs_once() {
        for threads in handles() {
            for chunks in [0, 1, 2, 3, 100] {
                let counts: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                threads.for_each(chunks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == 1)
                );
            }
        }
    }

    #[test]
    fn nested_calls_finish() {
        for threads in handles() {
            let sum = AtomicUsize::new(0);
            threads.for_each(8, |i| {
                threads.for_each(8, |j| {
                    sum.fetch_add(i * 8 + j, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), (0..64).sum());
        }
    }

    #[test]
    #[cfg(feature = "threads")]
    fn every_helper_may_call_again() {
        for threads in handles() {
            let calls = AtomicUsize::new(0);
            let sum = threads.sum_over_all_threads(|| {
                threads.for_each(8, |_| {
                    calls.fetch_add(1, Ordering::Relaxed);
                });
                1
            });
            assert_eq!(sum, threads.count());
            assert_eq!(calls.into_inner(), 8 * threads.count());
        }
    }

    #[test]
    #[cfg(feature = "threads")]
    fn loops_of_several_callers_all_end() {
        for threads in handles() {
            let sum = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..500 {
                            threads.for_each(3, |i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            });
                        }
                        threads.sum_over_all_threads(|| 0);
                    });
                }
            });
            assert_eq!(sum.into_inner(), 4 * 500 * 3);
        }
    }

    #[test]
    #[cfg(all(feature = "threads", panic = "unwind"))]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let threads = Threads::new(3).expect("threads");
        for bad in 0..50 {
            let panicked = std::panic::catch_unwind(|| {
                threads.for_each(50, |i| {
                    std::thread::sleep(std::time::Duration::from_micros(10));
                    assert!(i != bad);
                });
            });
            assert!(panicked.is_err());
        }
        assert_eq!(threads.sum_over_all_threads(|| 1), 3);
    }

    #[test]
    fn slices_are_split_without_overlap() {
        for threads in handles() {
            let mut data = vec![0usize; 1001];
            threads.for_each_chunk_mut(&mut data, 10, |i, chunk| {
                assert!(chunk.len() == 10 || (i == 100 && chunk.len() == 1));
                for (j, x) in chunk.iter_mut().enumerate() {
                    *x += i * 10 + j;
                }
            });
            assert!(data.iter().enumerate().all(|(i, &x)| i == x));
        }
    }

    #[test]
    fn pieces_cover_and_respect_their_bounds() {
        for threads in handles() {
            for (len, least, multiple) in [(0, 1, 1), (1, 1, 16), (100, 1, 16), (1000, 700, 8)] {
                let piece = threads.piece_len(len, least, multiple);
                assert!(piece >= least && piece.is_multiple_of(multiple));
                assert!(piece * threads.count() >= len);
            }
            let piece = threads.piece_len(usize::MAX / 4, 1000, 64);
            assert!((1000..1_000_000).contains(&piece), "a run can end: {piece}");
        }
    }
}
