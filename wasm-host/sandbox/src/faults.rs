//! Page faults counted by the kernel, which tell whether a page may have been written for the first
//! time.
//!
//! The first write to a page of a private mapping is a fault: the page is the file's, the shared zero
//! page or none, until then. The kernel counts each fault that it has answered, by thread. So where
//! the count did not change while a guest ran, all that it wrote are pages that were written, and kept,
//! before. Asking for the count takes a tenth of the time of looking for written pages. Source: Linux,
//! `mm_account_fault` and getrusage(2).
#![expect(unsafe_code, reason = "a system call that rustix does not know")]

use std::sync::OnceLock;

/// Whose faults are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// The calling thread's: for guests whose kernels run on it alone.
    Thread,
    /// All threads' of the process.
    Process,
}

impl Whose {
    /// Those of as many threads as share the work of a guest.
    pub(super) fn of_threads(count: usize) -> Self {
        match count {
            1 => Self::Thread,
            _ => Self::Process,
        }
    }

    /// How many there were; `None` where this kernel does not count them.
    pub(super) fn count(self) -> Option<i64> {
        is_counted().then(|| self.read())?
    }

    fn read(self) -> Option<i64> {
        let who = match self {
            Self::Thread => libc::RUSAGE_THREAD,
            Self::Process => libc::RUSAGE_SELF,
        };
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel writes one `rusage` there; all zeros is one, too.
        let usage = unsafe {
            let done = libc::getrusage(who, usage.as_mut_ptr());
            (done == 0).then(|| usage.assume_init())?
        };
        usage.ru_minflt.checked_add(usage.ru_majflt)
    }
}

/// Whether this kernel, or what stands for one, counts the first write to a page: tried out once.
fn is_counted() -> bool {
    static COUNTED: OnceLock<bool> = OnceLock::new();
    *COUNTED.get_or_init(|| {
        [Whose::Thread, Whose::Process]
            .into_iter()
            .all(|whose| each_write_counts(whose).unwrap_or(false))
    })
}

/// Writes to pages that were not touched and to pages that were read, and looks at the count.
fn each_write_counts(whose: Whose) -> Option<bool> {
    const PAGE: usize = super::slots::HOST_PAGE;
    const PAGES: usize = 8;
    let mut map = memmap2::MmapOptions::new()
        .len(PAGES * PAGE)
        .map_anon()
        .ok()?;
    // A huge page would be one fault for all of them.
    drop(map.advise(memmap2::Advice::NoHugePage));
    for page in (0..PAGES).step_by(2) {
        std::hint::black_box(map[page * PAGE]);
    }
    let mut counts = true;
    for page in 0..PAGES {
        let before = whose.read()?;
        map[page * PAGE] = 1;
        std::hint::black_box(&map);
        counts &= whose.read()? > before;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_write_is_no_fault_and_a_first_one_is() {
        if !is_counted() {
            eprintln!("skipped: this kernel does not count faults");
            return;
        }
        let mut map = memmap2::MmapOptions::new()
            .len(2 * 4096)
            .map_anon()
            .unwrap();
        drop(map.advise(memmap2::Advice::NoHugePage));
        map[0] = 1;
        let before = Whose::Thread.count();
        map[1] = 2;
        std::hint::black_box(&map);
        assert_eq!(Whose::Thread.count(), before);
        map[4096] = 2;
        std::hint::black_box(&map);
        assert!(Whose::Thread.count() > before);
    }
}
