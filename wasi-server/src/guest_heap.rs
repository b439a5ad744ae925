//! A guest's memory: what a request takes lies together.
//!
//! When an instance ends, every page that it wrote is reset. Small pieces that a general allocator
//! finds wherever something of their size was freed would each touch a page of their own, so requests
//! take theirs from a *desk*, a stretch of memory set aside when the model was loaded, one after the
//! other:
//!
//! ```text
//! desk   ┌─────────┬────────┬───┬──────────────────────┐
//!        │ message │ shapes │ … │ free                 │
//!        └─────────┴────────┴───┴──────────────────────┘
//!                               next ►                  when nothing is left on it, next is 0 again
//! ```
//!
//! What is large, or finds the desk full, comes from the allocators below, [small pieces apart from
//! large ones](BySize), as everything does while a model is being loaded.
#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

use crate::by_size::BySize;
use crate::wipe_on_free::{WipeOnFree, Wiping, move_to_new};

/// Bytes of the desk.
const DESK_BYTES: usize = 64 << 10;
/// A page of the host, which the desk begins with.
const PAGE_BYTES: usize = 4096;
/// Larger pieces do not come onto the desk.
const LARGEST_BYTES: usize = 16 << 10;

/// The allocator of a guest, which has one thread.
pub(crate) struct GuestHeap {
    below: WipeOnFree<BySize>,
    /// Null until there is one.
    desk: Cell<*mut u8>,
    is_open: Cell<bool>,
    /// Where the free part of the desk begins.
    next: Cell<usize>,
    /// Pieces on the desk.
    pieces: Cell<usize>,
}

// SAFETY: WebAssembly without shared memory has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl Sync for GuestHeap {}

impl GuestHeap {
    /// Without a desk.
    pub(crate) const fn new() -> Self {
        Self {
            below: WipeOnFree::at_times(BySize::new()),
            desk: Cell::new(ptr::null_mut()),
            is_open: Cell::new(false),
            next: Cell::new(0),
            pieces: Cell::new(0),
        }
    }

    /// Closes the desk and wipes what is freed, until what this gives ends.
    pub(crate) fn begin_loading(&self) -> Wiping<'_> {
        self.is_open.set(false);
        self.below.begin()
    }

    /// Sets a desk aside, the first time.
    pub(crate) fn set_aside(&self) {
        if self.desk.get().is_null() {
            let layout = Layout::from_size_align(DESK_BYTES, PAGE_BYTES);
            let layout = layout.expect("a layout of whole pages");
            // SAFETY: the layout is not empty.
            self.desk.set(unsafe { self.below.alloc_zeroed(layout) });
        }
    }

    /// From now on a request is answered: small pieces come onto the desk, if there is one.
    pub(crate) fn begin_request(&self) {
        self.is_open.set(!self.desk.get().is_null());
    }

    /// Room on the desk.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if !self.is_open.get() || layout.size() > LARGEST_BYTES || layout.align() > PAGE_BYTES {
            return None;
        }
        let start = self.next.get().next_multiple_of(layout.align());
        let end = start + layout.size();
        if end > DESK_BYTES {
            return None;
        }
        self.next.set(end);
        self.pieces.set(self.pieces.get() + 1);
        Some(self.desk.get().wrapping_add(start))
    }

    /// Where on the desk a piece is.
    fn place(&self, piece: *mut u8) -> Option<usize> {
        let desk = self.desk.get();
        let place = piece.addr().wrapping_sub(desk.addr());
        (!desk.is_null() && place < DESK_BYTES).then_some(place)
    }

    /// Gives a piece's room on the desk back, if nothing lies behind it.
    fn put_back(&self, place: usize, len: usize) {
        self.pieces.set(self.pieces.get() - 1);
        if self.pieces.get() == 0 {
            self.next.set(0);
        } else if place + len == self.next.get() {
            self.next.set(place);
        }
    }
}

// SAFETY: pieces on the desk are disjoint: each begins where the last one ended or later, and the
// free part goes back only over pieces that were given up. Others are the allocator's below, which is
// given back what it gave: `place` tells them apart by address.
unsafe impl GlobalAlloc for GuestHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        let below = || unsafe { self.below.alloc(layout) };
        self.take(layout).unwrap_or_else(below)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(piece) => {
                // SAFETY: the piece is this call's, and so long.
                unsafe { piece.write_bytes(0, layout.size()) };
                piece
            }
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            None => unsafe { self.below.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.place(piece) {
            Some(place) => {
                // SAFETY: the caller gives up so many bytes.
                unsafe { self.below.wipe(piece, layout.size()) };
                self.put_back(place, layout.size());
            }
            // SAFETY: the caller keeps the contract of `dealloc`; the piece is not the desk's.
            None => unsafe { self.below.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(place) = self.place(piece) else {
            // SAFETY: the caller keeps the contract of `realloc`; the piece is not the desk's.
            return unsafe { self.below.realloc(piece, layout, new_size) };
        };
        let stays = !self.below.is_wiping() && place + layout.size() == self.next.get();
        if stays && new_size <= LARGEST_BYTES && place + new_size <= DESK_BYTES {
            self.next.set(place + new_size);
            return piece;
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { move_to_new(self, piece, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// A heap whose desk is open.
    fn heap() -> GuestHeap {
        let heap = GuestHeap::new();
        heap.set_aside();
        heap.begin_request();
        heap
    }

    #[test]
    fn pieces_lie_together_until_the_desk_is_full() {
        let heap = heap();
        // SAFETY: no layout is empty, and each piece is given back as it was taken.
        unsafe {
            let places = |layouts: &[Layout]| -> Vec<_> {
                let pieces = layouts.iter().map(|&layout| (heap.alloc(layout), layout));
                let pieces: Vec<_> = pieces.collect();
                let places = pieces.iter().map(|&(piece, _)| heap.place(piece)).collect();
                pieces
                    .iter()
                    .for_each(|&(piece, layout)| heap.dealloc(piece, layout));
                places
            };
            let small = [layout(10, 1), layout(64, 64), layout(8, 8)];
            for _ in 0..3 {
                assert_eq!(places(&small), [Some(0), Some(64), Some(128)]);
            }
            assert_eq!(places(&[layout(LARGEST_BYTES + 1, 1)]), [None]);
            let full = places(&[layout(LARGEST_BYTES, 1); 5]);
            assert_eq!(full[3..], [Some(3 * LARGEST_BYTES), None]);
            let _loading = heap.begin_loading();
            assert_eq!(places(&small), [None; 3]);
        }
    }

    #[test]
    fn pieces_keep_their_content_when_they_grow_and_move() {
        let heap = heap();
        // SAFETY: no layout is empty, and each piece is given back with the layout it has.
        unsafe {
            let mut piece = heap.alloc(layout(100, 4));
            piece.write_bytes(7, 100);
            let keeps = |piece: *mut u8| (0..100).all(|i| *piece.add(i) == 7);
            // In place, then behind another one, then off the desk, then back to a smaller size.
            piece = heap.realloc(piece, layout(100, 4), 200);
            assert_eq!(heap.place(piece), Some(0));
            let behind = heap.alloc(layout(1, 1));
            piece = heap.realloc(piece, layout(200, 4), 300);
            assert!(keeps(piece) && heap.place(piece) == Some(204));
            piece = heap.realloc(piece, layout(300, 4), 1 << 20);
            assert!(keeps(piece) && heap.place(piece).is_none());
            piece = heap.realloc(piece, layout(1 << 20, 4), 100);
            assert!(keeps(piece));
            heap.dealloc(piece, layout(100, 4));
            heap.dealloc(behind, layout(1, 1));
            assert_eq!((heap.next.get(), heap.pieces.get()), (0, 0));
        }
    }

    #[test]
    fn the_desk_is_wiped_while_a_model_is_loaded() {
        let heap = heap();
        // SAFETY: no layout is empty, and each piece is given back with the layout it has; the desk
        // stays when its pieces are given back.
        unsafe {
            let pieces = [heap.alloc(layout(100, 1)), heap.alloc(layout(100, 1))];
            pieces.iter().for_each(|piece| piece.write_bytes(7, 100));
            let _loading = heap.begin_loading();
            heap.dealloc(pieces[0], layout(100, 1));
            let moved = heap.realloc(pieces[1], layout(100, 1), 50);
            assert!((0..50).all(|i| *moved.add(i) == 7));
            assert!((0..200).all(|i| *heap.desk.get().add(i) == 0));
            heap.dealloc(moved, layout(50, 1));
        }
    }

    #[test]
    fn zeroed_pieces_are_zero_where_others_were() {
        let heap = heap();
        // SAFETY: no layout is empty, and each piece is given back with the layout it has.
        unsafe {
            let piece = heap.alloc(layout(100, 1));
            piece.write_bytes(7, 100);
            heap.dealloc(piece, layout(100, 1));
            let zeroed = heap.alloc_zeroed(layout(100, 1));
            assert_eq!(zeroed, piece);
            assert!((0..100).all(|i| *zeroed.add(i) == 0));
            heap.dealloc(zeroed, layout(100, 1));
        }
    }
}
