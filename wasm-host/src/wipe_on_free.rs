//! An allocator that overwrites what is freed.
//!
//! Requests pass through buffers that others own: a connection's, a parser's, the runtime's. With
//! this allocator whatever the program frees is zero, whoever allocated it. It costs a pass over
//! freed memory; runs of a model, which allocate nothing, do not notice.
#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// The system's allocator, wiping memory before it is freed or moved.
#[derive(Debug, Clone, Copy)]
pub struct WipeOnFree;

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
            ptr.write_bytes(0, layout.size());
            // The zeros count as read, so that they are written although the memory goes.
            black_box(ptr);
            System.dealloc(ptr, layout);
        }
    }
    // `realloc` stays the trait's own: it allocates, copies, and frees by `dealloc` above.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_moves_keeps_its_content() {
        let layout = Layout::array::<u8>(100).unwrap();
        // SAFETY: the layout is not empty; the memory is freed with the layout it has.
        unsafe {
            let ptr = WipeOnFree.alloc_zeroed(layout);
            assert!(!ptr.is_null());
            ptr.write_bytes(7, 100);
            let moved = WipeOnFree.realloc(ptr, layout, 10_000);
            assert!((0..100).all(|i| *moved.add(i) == 7));
            WipeOnFree.dealloc(moved, Layout::array::<u8>(10_000).unwrap());
        }
    }
}
