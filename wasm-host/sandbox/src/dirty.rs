//! Which pages were written: the `PAGEMAP_SCAN` ioctl of Linux 6.7.
//!
//! In a private mapping a page that was only read is the file's or the shared zero page; one that
//! was written is anonymous memory of the process. So the written pages are those that are present
//! or swapped out, and neither of a file nor the zero page. Source: the kernel's
//! `Documentation/admin-guide/mm/pagemap.rst`; the criterion is wasmtime's.
#![expect(unsafe_code, reason = "an ioctl that rustix does not know")]

use std::ffi::c_void;
use std::fs::File;
use std::sync::OnceLock;

use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};

use super::slots::HOST_PAGE;

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO_PAGE: u64 = 1 << 5;

/// Ranges the kernel reports at a time.
const RANGES: usize = 64;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    ranges_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRange {
    start: u64,
    end: u64,
    categories: u64,
}

struct PagemapScan<'a> {
    arguments: ScanArguments,
    ranges: &'a mut [PageRange],
}

// SAFETY: the opcode is that of `PAGEMAP_SCAN`, whose argument is a `pm_scan_arg`; the kernel
// writes to it and to `ranges`, which both live while the call lasts.
unsafe impl Ioctl for PagemapScan<'_> {
    /// Number of ranges, and where the walk ended.
    type Output = (usize, u64);
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::read_write::<ScanArguments>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arguments.ranges = self.ranges.as_mut_ptr().expose_provenance() as u64;
        (&raw mut self.arguments).cast()
    }

    unsafe fn output_from_ptr(
        found: IoctlOutput,
        arguments: *mut c_void,
    ) -> rustix::io::Result<(usize, u64)> {
        // SAFETY: the pointer is the one that `as_ptr` gave, and the call is over.
        let walk_end = unsafe { (*arguments.cast::<ScanArguments>()).walk_end };
        Ok((found as usize, walk_end))
    }
}

/// The process's page map.
#[derive(Debug)]
pub(crate) struct DirtyPages(File);

impl DirtyPages {
    /// The page map, if this kernel can be asked which pages were written.
    fn open() -> Option<Self> {
        let pages = Self(File::open("/proc/self/pagemap").ok()?);
        pages.scan(0, 0, &mut []).ok()?;
        Some(pages)
    }

    /// The page map of this process, opened once: a process that nobody may look into cannot open it
    /// any more, but keeps what it has open.
    pub(crate) fn of_process() -> Option<&'static Self> {
        static PAGES: OnceLock<Option<DirtyPages>> = OnceLock::new();
        PAGES.get_or_init(Self::open).as_ref()
    }

    /// Calls `visit(start, end)` for each range of written pages between two addresses, upwards.
    ///
    /// # Errors
    /// What the kernel or `visit` says.
    pub(crate) fn for_each_range(
        &self,
        mut start: usize,
        end: usize,
        mut visit: impl FnMut(usize, usize) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let mut ranges = [PageRange::default(); RANGES];
        while start < end {
            let (found, walk_end) = self.scan(start, end, &mut ranges)?;
            for range in ranges.iter().take(found) {
                visit(
                    (range.start as usize).max(start),
                    (range.end as usize).min(end),
                )?;
            }
            if walk_end as usize <= start {
                break;
            }
            start = walk_end as usize;
        }
        Ok(())
    }

    /// Whether a page was written that has a byte between two addresses.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn any(&self, start: usize, end: usize) -> rustix::io::Result<bool> {
        let (start, end) = (start - start % HOST_PAGE, end.next_multiple_of(HOST_PAGE));
        let (found, _) = self.scan(start, end, &mut [PageRange::default()])?;
        Ok(found > 0)
    }

    fn scan(
        &self,
        start: usize,
        end: usize,
        ranges: &mut [PageRange],
    ) -> rustix::io::Result<(usize, u64)> {
        let arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: start as u64,
            end: end as u64,
            ranges_len: ranges.len() as u64,
            category_inverted: IS_FILE | IS_ZERO_PAGE,
            category_mask: IS_FILE | IS_ZERO_PAGE,
            category_any_of_mask: IS_PRESENT | IS_SWAPPED,
            return_mask: IS_PRESENT,
            ..ScanArguments::default()
        };
        // SAFETY: the descriptor is of `/proc/self/pagemap`, which takes this ioctl or refuses it.
        unsafe { ioctl::ioctl(&self.0, PagemapScan { arguments, ranges }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_pages_that_were_written() {
        let Some(pages) = DirtyPages::open() else {
            eprintln!("skipped: this kernel has no PAGEMAP_SCAN");
            return;
        };
        const PAGE: usize = HOST_PAGE;
        let mut map = memmap2::MmapOptions::new()
            .len(8 * PAGE)
            .map_anon()
            .unwrap();
        let base = map.as_ptr().addr();
        assert_eq!(map[7 * PAGE], 0, "a page that is only read");
        map[2 * PAGE] = 1;
        map[3 * PAGE + 5] = 1;
        map[6 * PAGE] = 1;
        let mut found = Vec::new();
        let visit = |start: usize, end: usize| {
            found.push(((start - base) / PAGE, (end - base) / PAGE));
            Ok(())
        };
        pages.for_each_range(base, base + 8 * PAGE, visit).unwrap();
        assert_eq!(found, [(2, 4), (6, 7)]);
        for (start, end, expected) in [
            (0, 2 * PAGE, false),
            (0, 2 * PAGE + 1, true),
            (4 * PAGE - 1, 5 * PAGE, true),
            (4 * PAGE, 6 * PAGE, false),
            (7 * PAGE, 8 * PAGE, false),
            (0, 8 * PAGE, true),
        ] {
            let any = pages.any(base + start, base + end);
            assert_eq!(any, Ok(expected), "{start} to {end}");
        }
    }
}
