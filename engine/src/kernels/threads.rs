//! Splitting work over threads.
//!
//! [`Threads`] is a handle on a pool, or on nothing: without the `threads` feature, on one thread
//! or for one chunk, everything runs inline. A call costs no heap allocation. Chunks are taken
//! from a shared counter, so that a slow thread takes fewer of them; which thread computes a chunk
//! is not determined, hence a chunk's result must not depend on it.

#[cfg(feature = "threads")]
use std::sync::Arc;
#[cfg(feature = "threads")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// A handle on worker threads. Clones share them; the last one ends them.
#[derive(Debug, Clone, Default)]
pub struct Threads {
    #[cfg(feature = "threads")]
    pool: Option<Arc<rayon::ThreadPool>>,
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

    /// A pool of `count` threads; for 0 or 1, only the calling thread.
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
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("lethe-{i}"))
            .build()
            .map_err(|error| ThreadsError {
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
            return pool.current_num_threads();
        }
        1
    }

    /// Runs `work` on one of the threads, so that the calls to [`Self::for_each`] within it need
    /// not wake the pool from outside each time. Worth it around a whole inference.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        #[cfg(feature = "threads")]
        if let Some(pool) = &self.pool {
            return pool.install(work);
        }
        work()
    }

    /// Calls `work(i)` once for each `i` in `0..chunks` and returns when all are done.
    ///
    /// May be called within such a call: the threads then help each other.
    pub fn for_each(&self, chunks: usize, work: impl Fn(usize) + Sync) {
        #[cfg(feature = "threads")]
        if let (Some(pool), true) = (&self.pool, chunks > 1) {
            let next = AtomicUsize::new(0);
            let take_all = || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= chunks {
                        break;
                    }
                    work(i);
                }
            };
            let workers = pool.current_num_threads().min(chunks);
            pool.install(|| side_by_side(workers, &take_all));
            return;
        }
        (0..chunks).for_each(work);
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
        if let (Some(pool), true) = (&self.pool, data.len() > chunk_len) {
            use rayon::iter::{IndexedParallelIterator, ParallelIterator};
            use rayon::slice::ParallelSliceMut;
            pool.install(|| {
                data.par_chunks_mut(chunk_len)
                    .enumerate()
                    .for_each(|(i, chunk)| work(i, chunk));
            });
            return;
        }
        for (i, chunk) in data.chunks_mut(chunk_len).enumerate() {
            work(i, chunk);
        }
    }

    /// How long the pieces should be if `len` elements are split evenly over the threads, none
    /// shorter than `least` and each a multiple of `multiple` (but the last).
    pub fn piece_len(&self, len: usize, least: usize, multiple: usize) -> usize {
        let multiple = multiple.max(1);
        let even = len.div_ceil(self.count()).max(least).max(1);
        even.div_ceil(multiple) * multiple
    }

    /// Calls `work` once on every thread of the pool and on the calling thread, and sums what it
    /// returns.
    pub(crate) fn sum_over_all_threads(&self, work: impl Fn() -> usize + Sync) -> usize {
        let here = work();
        #[cfg(feature = "threads")]
        if let Some(pool) = &self.pool {
            return here + pool.broadcast(|_| work()).into_iter().sum::<usize>();
        }
        here
    }
}

/// Calls `work` from `workers` places at the same time, as far as threads are free.
#[cfg(feature = "threads")]
fn side_by_side(workers: usize, work: &(impl Fn() + Sync)) {
    if workers <= 1 {
        work();
    } else {
        let half = workers / 2;
        rayon::join(
            || side_by_side(workers - half, work),
            || side_by_side(half, work),
        );
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
        }
    }
}
