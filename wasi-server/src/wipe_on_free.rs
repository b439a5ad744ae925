//! The guest's allocator, which overwrites what is freed while a model is being loaded.
//!
//! Loading takes several times the memory that the loaded model keeps: the file, its messages, the
//! graph, tables for packing. An image stores only what is not zero, so with this allocator it holds
//! the loaded model and nothing else. Requests do not pay for it: their memory goes with the
//! instance.
#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_WIPING: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: WipeOnFree = WipeOnFree(());

/// The allocator.
pub(crate) struct WipeOnFree(());

/// While it lives, what is freed is overwritten.
pub(crate) struct Wiping(());

impl WipeOnFree {
    /// Overwrites what is freed from now on.
    pub(crate) fn begin() -> Wiping {
        IS_WIPING.store(true, Ordering::Relaxed);
        Wiping(())
    }
}

impl Drop for Wiping {
    fn drop(&mut self) {
        IS_WIPING.store(false, Ordering::Relaxed);
    }
}

// SAFETY: memory comes from and goes to the system's allocator with the layouts that the caller
// gives; it is overwritten only when the caller has given it up.
unsafe impl GlobalAlloc for WipeOnFree {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up `layout.size()` bytes at `ptr`, which came from `alloc`.
        unsafe {
            if IS_WIPING.load(Ordering::Relaxed) {
                ptr.write_bytes(0, layout.size());
                // The zeros count as read, so that they are written although the memory goes.
                black_box(ptr);
            }
            System.dealloc(ptr, layout);
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !IS_WIPING.load(Ordering::Relaxed) {
            // SAFETY: the caller keeps the contract of `realloc`.
            return unsafe { System.realloc(ptr, layout, new_size) };
        }
        // SAFETY: the caller keeps the contract of `realloc`: `ptr` has `layout`, and `new_size` is
        // not zero and a size that a layout of this alignment can have. The new memory is another
        // piece than the old one, and both have room for the smaller of the two sizes.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                ptr.copy_to_nonoverlapping(moved, layout.size().min(new_size));
                self.dealloc(ptr, layout);
            }
            moved
        }
    }
}
