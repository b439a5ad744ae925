//! Small pieces of memory apart from large ones.
//!
//! ```text
//! small   ┌─segment──────────┐           ┌─segment──────────┐
//! large   └──────────────────┘ ┌─weights─┐└─────────────────┘┌─weights──────────┐ …
//! ```
//!
//! A general allocator puts what is small wherever there is room: between two weights, say, that were
//! allocated before and after it. Whoever reads it then has a view of pages that hold weights, which
//! the host's kernels read elsewhere, and who writes it makes those pages its own. So small pieces have
//! an allocator of their own, whose segments are large pieces of the system's, and large pieces have
//! their pages to themselves.
#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

use dlmalloc::Dlmalloc;

use crate::wipe_on_free::move_to_new;

/// Pieces from this size on are large.
const LARGE_BYTES: usize = 64 << 10;
/// What the allocator of small pieces takes at a time. Pages of it that are never touched cost nothing.
const SEGMENT_BYTES: usize = 512 << 10;
/// A page of the host.
const PAGE_BYTES: usize = 4096;

/// Two allocators; which of them has a piece, its size tells.
pub(crate) struct BySize {
    small: UnsafeCell<Dlmalloc<Segments>>,
}

impl BySize {
    pub(crate) const fn new() -> Self {
        Self {
            small: UnsafeCell::new(Dlmalloc::new_with_allocator(Segments)),
        }
    }

    /// Calls `f` with the allocator of small pieces.
    fn with_small<T>(&self, f: impl FnOnce(&mut Dlmalloc<Segments>) -> T) -> T {
        // SAFETY: one thread at a time calls this, since `BySize` is shared in WebAssembly alone,
        // which has one; and no `f` of this module calls it again.
        f(unsafe { &mut *self.small.get() })
    }
}

fn is_small(size: usize) -> bool {
    size < LARGE_BYTES
}

/// The same layout in whole pages; where that is none, the layout, for which there is no memory.
fn in_pages(layout: Layout) -> Layout {
    let pages = layout.align_to(PAGE_BYTES);
    pages.map_or(layout, |pages| pages.pad_to_align())
}

// SAFETY: WebAssembly without shared memory has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl Sync for BySize {}

// SAFETY: a piece is given back to the allocator that it came from, which its size tells, with the
// layout that it came with.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe {
            match is_small(layout.size()) {
                true => self.with_small(|small| small.malloc(layout.size(), layout.align())),
                false => System.alloc(in_pages(layout)),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe {
            match is_small(layout.size()) {
                true => self.with_small(|small| small.calloc(layout.size(), layout.align())),
                false => System.alloc_zeroed(in_pages(layout)),
            }
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe {
            match is_small(layout.size()) {
                true => self.with_small(|small| small.free(piece, layout.size(), layout.align())),
                false => System.dealloc(piece, in_pages(layout)),
            }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (old_size, align) = (layout.size(), layout.align());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe {
            match is_small(old_size) && is_small(new_size) {
                true => self.with_small(|small| small.realloc(piece, old_size, align, new_size)),
                false => move_to_new(self, piece, layout, new_size),
            }
        }
    }
}

/// Where small pieces come from.
struct Segments;

// SAFETY: segments are the system's, of the size that is said, and never taken back.
unsafe impl dlmalloc::Allocator for Segments {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let nothing = (ptr::null_mut(), 0, 0);
        let Ok(layout) = Layout::from_size_align(size.max(SEGMENT_BYTES), PAGE_BYTES) else {
            return nothing;
        };
        let layout = layout.pad_to_align();
        // SAFETY: the layout is not empty.
        let segment = unsafe { System.alloc(layout) };
        match segment.is_null() {
            true => nothing,
            false => (segment, layout.size(), 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        false
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn small_pieces_lie_together_and_large_ones_elsewhere() {
        let heap = BySize::new();
        // SAFETY: no layout is empty, and each piece is given back as it was taken.
        unsafe {
            let pieces: Vec<_> = [100, LARGE_BYTES, 100, 2 * LARGE_BYTES, 100]
                .map(|size| (heap.alloc(layout(size)), layout(size)))
                .into();
            let addresses: Vec<usize> = pieces.iter().map(|(piece, _)| piece.addr()).collect();
            assert!(addresses[2] - addresses[0] < 128 && addresses[4] - addresses[2] < 128);
            let segment = addresses[0]..addresses[0] + SEGMENT_BYTES - PAGE_BYTES;
            assert!(!segment.contains(&addresses[1]) && !segment.contains(&addresses[3]));
            pieces
                .iter()
                .for_each(|&(piece, layout)| heap.dealloc(piece, layout));
            let again = heap.alloc(layout(100));
            assert_eq!(again.addr(), addresses[0]);
            heap.dealloc(again, layout(100));
        }
    }

    #[test]
    fn pieces_keep_their_content_when_they_become_large_and_small_again() {
        let heap = BySize::new();
        // SAFETY: no layout is empty, and each piece is given back with the layout it has.
        unsafe {
            let zeroed = heap.alloc_zeroed(layout(100));
            assert!((0..100).all(|i| *zeroed.add(i) == 0));
            zeroed.write_bytes(7, 100);
            let (mut piece, mut size) = (zeroed, 100);
            for new_size in [
                1000,
                LARGE_BYTES - 1,
                LARGE_BYTES,
                9 * LARGE_BYTES,
                LARGE_BYTES,
                200,
            ] {
                piece = heap.realloc(piece, layout(size), new_size);
                size = new_size;
                assert!((0..100).all(|i| *piece.add(i) == 7), "{size} bytes");
            }
            heap.dealloc(piece, layout(size));
        }
    }
}
