//! What the run that is on in this thread may take: memory, and time.
//!
//! A run goes on [`within`] its [`Limits`]. What may be large (tensors, the arena, scratch memory, packed
//! weights) is [charged](charge) before it is allocated, and given back when it is freed; loops look
//! whether the run [is to end](is_stopped). Both are known to the thread and not handed down: a kernel
//! that needs scratch memory is many calls below who knows the budget.
//!
//! Where such a call can return an error, it does. Where it cannot, it unwinds with an [`Ended`], which
//! [`until_ended`] turns into an error again: the executor does so around each operator, and loading a
//! model around all it does. No panic is reported, and none leaves the engine. Programs that abort
//! instead of unwinding (WebAssembly) are ended; a sandbox's host says so, and has limits of its own.

use bytemuck::Zeroable;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a run may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of memory at one time.
    pub memory_bytes: u64,
    /// What ends it.
    pub stop: Stop,
}

/// What tells a run to end; by default nothing does. Once it has, it does not take it back.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Somebody raises this flag.
    pub flag: Option<Arc<AtomicBool>>,
    /// A counter, which somebody advances, comes to this number: time, for who has no clock.
    pub at: Option<(&'static AtomicU64, u64)>,
}

impl Stop {
    /// When the flag is raised.
    pub fn when(flag: Arc<AtomicBool>) -> Self {
        Self {
            flag: Some(flag),
            at: None,
        }
    }

    fn is_set(&self) -> bool {
        let is_raised = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        let is_past = |(counter, at): &(&AtomicU64, u64)| counter.load(Ordering::Relaxed) >= *at;
        self.flag.as_ref().is_some_and(is_raised) || self.at.as_ref().is_some_and(is_past)
    }

    /// This, or what `outer` says of what this leaves open.
    fn or(self, outer: &Self) -> Self {
        Self {
            flag: self.flag.or_else(|| outer.flag.clone()),
            at: self.at.or(outer.at),
        }
    }
}

/// Memory that is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The run would have more than it may.
    #[error("{needed} bytes of memory, {left} of {limit} are left")]
    Budget {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that the run may still take.
        left: u64,
        /// Bytes that it may have in all.
        limit: u64,
    },
    /// The operating system gives no more.
    #[error("{needed} bytes of memory, which the system does not give")]
    System {
        /// Bytes asked for.
        needed: u64,
    },
    /// More than can be addressed.
    #[error("a size beyond what can be addressed")]
    Address,
}

/// Why a run ended before it was through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// There was no memory for it.
    Shortage(Shortage),
}

/// What a thread knows of the run that it is in. A run's number tells charges of an earlier run, whose
/// tensors may outlive it, from those of this one.
struct Run {
    /// 0 outside of any run.
    number: Cell<u64>,
    limit: Cell<u64>,
    used: Cell<u64>,
    stop: RefCell<Stop>,
}

thread_local! {
    static RUN: Run = const {
        Run { number: Cell::new(0), limit: Cell::new(u64::MAX), used: Cell::new(0), stop: RefCell::new(Stop { flag: None, at: None }) }
    };
}

/// Does `work` as a run within limits. A run within a run is a part of it: what it takes is taken of what
/// that has left, and it ends with it.
pub fn within<R>(limits: Limits, work: impl FnOnce() -> R) -> R {
    static NUMBER: AtomicU64 = AtomicU64::new(1);

    struct Around {
        number: u64,
        limit: u64,
        stop: Stop,
    }
    impl Drop for Around {
        fn drop(&mut self) {
            let stop = std::mem::take(&mut self.stop);
            RUN.with(|run| {
                run.number.set(self.number);
                run.limit.set(self.limit);
                if self.number == 0 {
                    run.used.set(0);
                }
                run.stop.replace(stop)
            });
        }
    }

    let around = RUN.with(|run| {
        let (limit, stop) = (limits.memory_bytes, limits.stop);
        match run.number.get() {
            0 => Around {
                number: run.number.replace(NUMBER.fetch_add(1, Ordering::Relaxed)),
                limit: run.limit.replace(limit),
                stop: run.stop.replace(stop),
            },
            number => {
                let most = run.used.get().saturating_add(limit);
                let stop = stop.or(&run.stop.borrow());
                Around {
                    number,
                    limit: run.limit.replace(run.limit.get().min(most)),
                    stop: run.stop.replace(stop),
                }
            }
        }
    });
    let result = work();
    drop(around);
    result
}

/// Does `work` on a thread that helps with a run which `stop` ends.
#[cfg(feature = "threads")]
pub(crate) fn helping(stop: &Stop, work: impl FnOnce()) {
    if (stop.flag.is_none() && stop.at.is_none()) || is_in_run() {
        return work();
    }
    let limits = Limits {
        memory_bytes: u64::MAX,
        stop: stop.clone(),
    };
    within(limits, work);
}

#[cfg(feature = "threads")]
fn is_in_run() -> bool {
    RUN.try_with(|run| run.number.get() != 0).unwrap_or(false)
}

/// Does `work` and says where it ended before its time.
///
/// # Errors
/// An [`Ended`] that was unwound with. Other panics go on.
pub fn until_ended<R>(work: impl FnOnce() -> R) -> Result<R, Ended> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| match payload.downcast::<Ended>() {
        Ok(ended) => *ended,
        Err(other) => resume_unwind(other),
    })
}

impl Ended {
    /// Unwinds to the next [`until_ended`].
    pub fn raise(self) -> ! {
        match cfg!(panic = "unwind") {
            true => resume_unwind(Box::new(self)),
            false => panic!("the run ended: {self:?}"),
        }
    }
}

/// What ends this thread's run.
#[cfg(feature = "threads")]
pub(crate) fn stop() -> Stop {
    RUN.try_with(|run| run.stop.borrow().clone())
        .unwrap_or_default()
}

/// Whether this thread's run is to end.
pub fn is_stopped() -> bool {
    RUN.try_with(|run| run.stop.borrow().is_set())
        .unwrap_or(false)
}

/// Ends this thread's run here if it is to end: for loops that take long and have no threads to share
/// them with. Without effect where a panic aborts.
pub fn end_if_stopped() {
    if cfg!(panic = "unwind") && is_stopped() {
        Ended::Stopped.raise();
    }
}

/// Looks in a loop whether this thread's run is to end, though not in each of its rounds: a round may take
/// less than the look.
#[derive(Debug)]
pub struct Watch {
    left: usize,
}

impl Watch {
    /// Products and sums between two looks: microseconds by vectors, a few milliseconds without.
    const WORK: usize = 1 << 20;

    /// Looks once, and begins to count.
    pub fn begin() -> Self {
        end_if_stopped();
        Self { left: Self::WORK }
    }

    /// Counts the work of a round, in products or sums.
    #[inline(always)]
    pub fn count(&mut self, work: usize) {
        match self.left.checked_sub(work) {
            Some(left) => self.left = left,
            None => *self = Self::begin(),
        }
    }
}

/// Memory that counts as its run's until this is dropped.
#[derive(Debug, Default)]
pub struct Charge {
    run: u64,
    bytes: u64,
}

/// Charges `bytes` to the run that this thread is in, if it is in one.
///
/// # Errors
/// [`Shortage::Budget`] where the run may not have so much.
pub fn charge(bytes: usize) -> Result<Charge, Shortage> {
    RUN.try_with(|run| {
        if run.number.get() == 0 {
            return Ok(Charge::default());
        }
        let needed = bytes as u64;
        let left = run.limit.get().saturating_sub(run.used.get());
        if needed > left {
            return Err(Shortage::Budget {
                needed,
                left,
                limit: run.limit.get(),
            });
        }
        run.used.set(run.used.get() + needed);
        Ok(Charge {
            run: run.number.get(),
            bytes: needed,
        })
    })
    .unwrap_or(Ok(Charge::default()))
}

impl Charge {
    /// Charges so many bytes more.
    ///
    /// # Errors
    /// As [`charge`]; what was charged before stays so.
    pub fn add(&mut self, bytes: usize) -> Result<(), Shortage> {
        let mut more = charge(bytes)?;
        if more.run != self.run {
            // What was charged in another run is that one's: it ends with it.
            *self = more;
            return Ok(());
        }
        self.bytes += std::mem::take(&mut more.bytes);
        Ok(())
    }

    /// Whether it is another run's, or nobody's.
    pub(crate) fn is_foreign(&self) -> bool {
        RUN.try_with(|run| run.number.get() != self.run)
            .unwrap_or(false)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.run == 0 {
            return;
        }
        // A thread that is ending is in no run.
        let _ = RUN.try_with(|run| {
            if run.number.get() == self.run {
                run.used.set(run.used.get().saturating_sub(self.bytes));
            }
        });
    }
}

/// Bytes of `len` elements, if this thread's run has so much left.
fn room<T>(len: usize) -> Result<u64, Shortage> {
    let bytes = len
        .checked_mul(size_of::<T>())
        .filter(|&bytes| bytes <= isize::MAX as usize)
        .ok_or(Shortage::Address)?;
    // Given back at once: what is only working memory is looked at one by one.
    charge(bytes).map(|_| bytes as u64)
}

/// `len` elements of zeros. They count as the run's only where a [`Charge`] is kept beside them.
///
/// # Errors
/// A [`Shortage`].
pub fn try_zeroed<T: Zeroable>(len: usize) -> Result<Vec<T>, Shortage> {
    let needed = room::<T>(len)?;
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Shortage::System { needed })
}

/// As [`try_zeroed`], for who cannot return an error.
pub fn zeroed<T: Zeroable>(len: usize) -> Vec<T> {
    try_zeroed(len).unwrap_or_else(|shortage| shortage.raise())
}

/// An empty vector with room for `len` elements, for who cannot return an error.
pub fn with_room<T>(len: usize) -> Vec<T> {
    let reserved = room::<T>(len).and_then(|needed| {
        let mut elements = Vec::new();
        match elements.try_reserve_exact(len) {
            Ok(()) => Ok(elements),
            Err(_) => Err(Shortage::System { needed }),
        }
    });
    reserved.unwrap_or_else(|shortage| shortage.raise())
}

/// `len` elements of value `element`, for who cannot return an error.
pub fn filled<T: Clone>(element: T, len: usize) -> Vec<T> {
    let mut elements = with_room(len);
    elements.resize(len, element);
    elements
}

/// Makes a vector that of `len` elements of value `element`, in its old memory where that is large enough.
pub fn refill<T: Clone>(elements: &mut Vec<T>, element: T, len: usize) {
    elements.clear();
    if elements.capacity() < len {
        *elements = with_room(len);
    }
    elements.resize(len, element);
}

/// A vector of a copy of `elements`, for who cannot return an error.
pub fn copied<T: Clone>(elements: &[T]) -> Vec<T> {
    let mut copy = with_room(elements.len());
    copy.extend_from_slice(elements);
    copy
}

impl Shortage {
    /// Ends the run with it.
    pub fn raise(self) -> ! {
        Ended::Shortage(self).raise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_bytes: u64) -> Limits {
        Limits {
            memory_bytes,
            stop: Stop::default(),
        }
    }

    #[test]
    fn what_is_freed_can_be_had_again_and_what_outlives_its_run_counts_no_more() {
        let kept = within(limits(100), || {
            let first = charge(60).expect("40 are left");
            let refused = charge(41).unwrap_err();
            let expected = Shortage::Budget {
                needed: 41,
                left: 40,
                limit: 100,
            };
            assert_eq!(refused, expected);
            drop(first);
            charge(100).expect("all are free again")
        });
        within(limits(100), || {
            let all = charge(100).expect("another run's");
            drop(kept);
            assert!(charge(1).is_err(), "{all:?} stays charged");
        });
        assert!(charge(usize::MAX).is_ok(), "outside of runs nothing counts");
    }

    #[test]
    fn a_run_in_a_run_is_a_part_of_it() {
        within(limits(100), || {
            let held = charge(60).expect("free");
            let inner = within(limits(50), || {
                assert!(charge(41).is_err(), "beyond the outer one's");
                charge(40).expect("what is left")
            });
            assert!(charge(1).is_err(), "{held:?} and {inner:?} are charged");
            drop(inner);
            let refused = within(limits(30), || charge(31).unwrap_err());
            let expected = Shortage::Budget {
                needed: 31,
                left: 30,
                limit: 90,
            };
            assert_eq!(refused, expected);
        });
    }

    #[test]
    fn vectors_beyond_limit_system_and_addresses_are_refused() {
        let beyond = within(limits(1 << 20), || try_zeroed::<u64>(1 << 18));
        assert!(matches!(beyond, Err(Shortage::Budget { .. })), "{beyond:?}");
        for len in [usize::MAX, usize::MAX / 8, (isize::MAX as usize) / 8 + 1] {
            assert_eq!(try_zeroed::<u64>(len), Err(Shortage::Address));
        }
        // Half of what a 32-bit program can address may be there.
        if cfg!(target_pointer_width = "64") {
            let refused = try_zeroed::<u64>(isize::MAX as usize / 8);
            assert!(matches!(refused, Err(Shortage::System { .. })));
        }
    }

    #[test]
    fn a_flag_or_a_counter_ends_a_run_and_those_in_it() {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        let at = Stop {
            flag: None,
            at: Some((&TICKS, 5)),
        };
        let outer = Limits {
            memory_bytes: 1,
            stop: at,
        };
        within(outer, || {
            within(limits(1), || {
                assert!(!is_stopped());
                TICKS.store(5, Ordering::Relaxed);
                assert!(is_stopped(), "the outer one ends");
            });
            let raised = Limits {
                memory_bytes: 1,
                stop: Stop::when(Arc::new(true.into())),
            };
            TICKS.store(0, Ordering::Relaxed);
            assert!(within(raised, is_stopped));
            assert!(!is_stopped(), "only the inner one ends");
        });
    }

    #[test]
    #[cfg(panic = "unwind")]
    fn a_run_ends_from_deep_below_and_other_panics_go_on() {
        let stop = Arc::new(AtomicBool::new(false));
        let run = Limits {
            memory_bytes: 10,
            stop: Stop::when(stop.clone()),
        };
        within(run, || {
            let short = until_ended(|| filled(0u64, 2));
            assert!(matches!(short, Err(Ended::Shortage(_))), "{short:?}");
            let mut watch = Watch::begin();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(until_ended(end_if_stopped), Err(Ended::Stopped));
            let counted = until_ended(|| (0..=Watch::WORK).for_each(|_| watch.count(1)));
            assert_eq!(counted, Err(Ended::Stopped));
            assert_eq!(until_ended(|| watch.count(usize::MAX)), Err(Ended::Stopped));
            let other = catch_unwind(|| until_ended(|| panic!("other")));
            assert!(other.is_err());
        });
        assert!(!is_stopped(), "outside of the run");
    }
}
