//! An allocator that overwrites what is freed.
//!
//! Requests pass through buffers that others own: a connection's, a parser's, the runtime's. In the
//! host whatever the program frees is zero, whoever allocated it. That costs a pass over freed memory;
//! runs of a model, which allocate nothing, do not notice.
//!
//! In a guest it is so only while a model is being loaded, which takes several times the memory that
//! the loaded model keeps: the file, its messages, the graph, tables for packing. An image stores only
//! what is not zero, so it holds the loaded model and nothing else. Requests do not pay for it: their
//! memory goes with the instance.
#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

/// An allocator, the system's unless another is said, that has memory wiped before it is freed or
/// moved.
#[derive(Debug)]
pub struct WipeOnFree<A = System> {
    is_wiping: AtomicBool,
    below: A,
}

/// While it lives, what is freed is overwritten.
#[derive(Debug)]
pub struct Wiping<'a>(&'a AtomicBool);

impl WipeOnFree<System> {
    /// Overwrites all that is freed.
    pub const fn always() -> Self {
        Self {
            is_wiping: AtomicBool::new(true),
            below: System,
        }
    }
}

impl<A> WipeOnFree<A> {
    /// Overwrites what is freed between [`WipeOnFree::begin`] and the end of what that gives.
    pub const fn at_times(below: A) -> Self {
        Self {
            is_wiping: AtomicBool::new(false),
            below,
        }
    }

    /// Overwrites what is freed from now on.
    pub fn begin(&self) -> Wiping<'_> {
        self.is_wiping.store(true, Ordering::Relaxed);
        Wiping(&self.is_wiping)
    }

    /// Whether what is freed is overwritten.
    pub fn is_wiping(&self) -> bool {
        self.is_wiping.load(Ordering::Relaxed)
    }

    /// Overwrites memory that is given up, if that is to be done now.
    ///
    /// # Safety
    /// Nobody but the caller has these `len` bytes.
    pub(crate) unsafe fn wipe(&self, piece: *mut u8, len: usize) {
        if self.is_wiping() {
            // SAFETY: the caller has so many bytes.
            unsafe { piece.write_bytes(0, len) };
            // The zeros count as read, so that they are written although the memory goes.
            black_box(piece);
        }
    }
}

impl Drop for Wiping<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

// SAFETY: memory comes from and goes to the allocator below with the layouts that the caller
// gives; it is overwritten only when the caller has given it up.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipeOnFree<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.below.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { self.below.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up `layout.size()` bytes at `ptr`, which came from `alloc`.
        unsafe {
            self.wipe(ptr, layout.size());
            self.below.dealloc(ptr, layout);
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.is_wiping() {
            // SAFETY: the caller keeps the contract of `realloc`.
            return unsafe { self.below.realloc(ptr, layout, new_size) };
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { move_to_new(self, ptr, layout, new_size) }
    }
}

/// `realloc` of an allocator that never grows a piece where it is.
///
/// # Safety
/// That of [`GlobalAlloc::realloc`].
pub(crate) unsafe fn move_to_new(
    allocator: &impl GlobalAlloc,
    piece: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    // SAFETY: the caller keeps the contract of `realloc`: `piece` has `layout`, and `new_size` is not
    // zero and a size that a layout of this alignment can have. The new memory is another piece than
    // the old one, and both have room for the smaller of the two sizes.
    unsafe {
        let moved = allocator.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
        if !moved.is_null() {
            moved.copy_from_nonoverlapping(piece, layout.size().min(new_size));
            allocator.dealloc(piece, layout);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_moves_keeps_its_content() {
        for (name, allocator) in [
            ("always", WipeOnFree::always()),
            ("at times", WipeOnFree::at_times(System)),
        ] {
            let layout = Layout::array::<u8>(100).unwrap();
            // SAFETY: the layout is not empty; the memory is freed with the layout it has.
            unsafe {
                let ptr = allocator.alloc_zeroed(layout);
                assert!(!ptr.is_null());
                ptr.write_bytes(7, 100);
                let moved = allocator.realloc(ptr, layout, 10_000);
                assert!((0..100).all(|i| *moved.add(i) == 7), "{name}");
                allocator.dealloc(moved, Layout::array::<u8>(10_000).unwrap());
            }
        }
    }

    #[test]
    fn a_guest_wipes_while_it_loads_and_a_host_always() {
        assert!(WipeOnFree::always().is_wiping());
        let guest = WipeOnFree::at_times(System);
        let wiping = guest.begin();
        assert!(guest.is_wiping());
        drop(wiping);
        assert!(!guest.is_wiping());
    }
}
