//! Working memory of the kernels: aligned, reused, and erasable.
//!
//! Each thread keeps a stack of buffers. [`with`] lends the best one for the duration of a call;
//! calls nest, each level getting its own buffer. After a warm-up a run allocates nothing.
//!
//! Request data passes through these buffers, so they are zeroed where they end: before a buffer
//! is freed (to grow, or with its thread) and, for the living, by [`wipe`]. A buffer remembers how
//! far it was used since the last wipe, so that wiping costs no more than the use did; and it is
//! counted how many helpers used theirs, so that nobody wakes the pool to wipe what is clean.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::{Pod, Zeroable};

use super::threads::Threads;
use crate::limits::{self, Charge, Shortage};

/// Bytes of a cache line: the alignment of every buffer.
pub const ALIGNMENT: usize = 64;

/// A cache line: the unit of allocation, so that buffers are aligned.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; ALIGNMENT]);

/// A buffer and how many of its lines may hold data.
#[derive(Default)]
struct Buffer {
    lines: Vec<Line>,
    dirty: usize,
}

impl Buffer {
    /// Zeros what was used and returns how many bytes that were.
    fn wipe(&mut self) -> usize {
        let used = &mut self.lines[..self.dirty];
        used.fill(Line::zeroed());
        // The bytes count as read, so that the stores stay even if the memory is freed next.
        black_box(&*used);
        std::mem::take(&mut self.dirty) * ALIGNMENT
    }

    /// Makes room for `lines` lines. The old memory is wiped, its content is not kept.
    fn reserve(&mut self, lines: usize) {
        if self.lines.len() < lines {
            self.wipe();
            self.lines = Vec::new();
            self.lines = limits::zeroed(lines);
        }
        self.dirty = self.dirty.max(lines);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.wipe();
    }
}

thread_local! {
    /// The buffers of this thread that are not lent.
    static IDLE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Helpers of any pool that used scratch memory since it was last wiped.
static USED_BY_HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Whether this thread is counted in [`USED_BY_HELPERS`].
struct Counted(Cell<bool>);

impl Counted {
    /// Counts this thread, if it is a helper, or no longer.
    ///
    /// Who waits for a helper's work sees the count that goes with it: the pool orders the two.
    fn set(&self, used: bool) {
        if Threads::is_helper() && self.0.replace(used) != used {
            match used {
                true => USED_BY_HELPERS.fetch_add(1, Ordering::Relaxed),
                false => USED_BY_HELPERS.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.get() {
            USED_BY_HELPERS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static COUNTED: Counted = const { Counted(Cell::new(false)) };
}

/// A lent buffer: goes back to its thread's stack when dropped, also while unwinding. Till then it counts
/// as the run's memory.
struct Lent(Buffer, #[expect(dead_code, reason = "held")] Charge);

impl Lent {
    /// Takes the smallest idle buffer that is large enough, or else grows the largest.
    fn take(lines: usize) -> Lent {
        let charge = limits::charge(lines.saturating_mul(ALIGNMENT));
        let charge = charge.unwrap_or_else(|shortage| shortage.raise());
        let mut buffer = IDLE.with_borrow_mut(|idle| {
            let fitting = (0..idle.len())
                .filter(|&i| idle[i].lines.len() >= lines)
                .min_by_key(|&i| idle[i].lines.len());
            let largest = || (0..idle.len()).max_by_key(|&i| idle[i].lines.len());
            fitting
                .or_else(largest)
                .map(|i| idle.swap_remove(i))
                .unwrap_or_default()
        });
        buffer.reserve(lines);
        COUNTED.with(|counted| counted.set(true));
        Lent(buffer, charge)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no stack any more; then the buffer wipes itself.
        let _ = IDLE.try_with(|idle| idle.borrow_mut().push(buffer));
    }
}

/// Lends `len` elements of scratch memory, aligned to [`ALIGNMENT`] bytes, with unspecified
/// content.
///
/// Without memory for them the run [ends](crate::limits::until_ended).
///
/// Borrow before entering [`dispatch`](crate::isa::dispatch): `work` is compiled without its
/// instruction set.
pub fn with<T: Pod, R>(len: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
    let Some(bytes) = len.checked_mul(size_of::<T>()) else {
        Shortage::Address.raise()
    };
    let lines = bytes.div_ceil(ALIGNMENT);
    let mut lent = Lent::take(lines);
    let all: &mut [u8] = bytemuck::cast_slice_mut(&mut lent.0.lines[..lines]);
    work(bytemuck::cast_slice_mut(&mut all[..bytes]))
}

/// Zeros all idle scratch memory of the calling thread and of the pool's threads, and returns how
/// many bytes had been used since the last time. Buffers on loan are left alone.
pub fn wipe(threads: &Threads) -> usize {
    match USED_BY_HELPERS.load(Ordering::Relaxed) {
        0 => wipe_thread(),
        _ => threads.sum_over_all_threads(wipe_thread),
    }
}

fn wipe_thread() -> usize {
    COUNTED.with(|counted| counted.set(false));
    IDLE.with_borrow_mut(|idle| idle.iter_mut().map(Buffer::wipe).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle_bytes() -> Vec<u8> {
        IDLE.with_borrow(|idle| {
            idle.iter()
                .flat_map(|buffer| bytemuck::cast_slice(&buffer.lines).to_vec())
                .collect()
        })
    }

    #[test]
    fn buffers_are_aligned_sized_and_nest() {
        with::<f32, _>(100, |a| {
            a.fill(1.0);
            with::<i8, _>(1000, |b| {
                b.fill(2);
                assert_eq!(b.len(), 1000);
                assert_eq!(b.as_ptr().addr() % ALIGNMENT, 0);
            });
            assert_eq!(a.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(a, [1.0; 100]);
        });
        assert_eq!(with::<u64, _>(0, |empty| empty.len()), 0);
    }

    #[test]
    fn steady_state_reuses_the_memory() {
        let place = || with::<f32, _>(500, |a| with::<f32, _>(3000, |b| (a.as_ptr(), b.as_ptr())));
        place();
        assert_eq!(place(), place());
    }

    #[test]
    fn wipe_leaves_zeros_and_counts_what_was_used() {
        let threads = Threads::new(2).unwrap_or_default();
        wipe(&threads);
        with::<u8, _>(1000, |a| a.fill(0xaa));
        with::<u8, _>(100, |a| a.fill(0xbb));
        assert!(idle_bytes().iter().any(|&x| x != 0));
        assert_eq!(wipe(&threads), 1024);
        assert!(idle_bytes().iter().all(|&x| x == 0));
        assert_eq!(wipe(&threads), 0);
    }

    #[test]
    fn wipe_reaches_the_threads_of_the_pool() {
        let Ok(threads) = Threads::new(3) else {
            eprintln!("skipped: no threads in this build");
            return;
        };
        threads.sum_over_all_threads(|| {
            with::<u8, _>(64, |a| a.fill(0xcc));
            0
        });
        assert_eq!(wipe(&threads), 3 * 64);
        let left =
            threads.sum_over_all_threads(|| idle_bytes().iter().filter(|&&byte| byte != 0).count());
        assert_eq!(left, 0);
    }
}
