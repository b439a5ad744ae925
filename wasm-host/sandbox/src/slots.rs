//! Slots: address space in which an image is instantiated again and again.
//!
//! ```text
//! base                 image                        grown            4 GiB      + guard
//! ├────────────────────┼────────────────────────────┼────────────────┼──────────┤
//! │ file, private  │ 0 │ file, private │ 0 …        │ no access                 │
//! └────────────────────┴────────────────────────────┴────────────────┴──────────┘
//! ```
//!
//! A slot reserves what compiled code may address without a bounds check (4 GiB and a guard), maps
//! the image's pieces privately (copy-on-write, weights shared by all slots through the page cache)
//! with anonymous zero pages between them, and forbids the rest. An instance borrows a slot as its
//! linear memory; when the instance is dropped, so is its [`SlotMemory`], and the slot is *reset*:
//! every page that was written gets its content from the image again or is given back to the
//! kernel. Only then is the slot free for the next instance.
//!
//! # Safety
//! The mappings of a slot are made once, live as long as the [`Slot`], and are reached only through
//! the instance that holds the slot's `SlotMemory`, or, between instances, by the reset. Pages at
//! and above `accessible` have no access rights, which is what compiled code relies on.
#![expect(unsafe_code, reason = "maps and resets the memory of instances")]

use std::cell::Cell;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use super::dirty::DirtyPages;
use super::image::Image;
use super::unwritten::Unwritten;

/// Bytes of a page of the host.
pub(crate) const HOST_PAGE: usize = 4096;

/// Bytes that one table of pages describes. A scan for written pages takes as long as there are pages
/// in the tables that exist, touched or not.
const TABLE_BYTES: usize = 2 << 20;
/// Room below the first piece of an image, a guest's stack, that shares a table with it. What is
/// further down is hardly ever touched, and has a table of its own that need not exist.
const STACK_BYTES: usize = 64 << 10;

/// Images from this size on have a slot's view of their weights dropped at each reset. The pages are
/// the file's and shared by all slots, but what counts the resident memory of a process counts each
/// view of them. Native kernels read them elsewhere, so little has to be found again.
const LARGE_BYTES: usize = 32 << 20;

/// How slots are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WipePolicy {
    /// Ask the kernel which pages were written (`PAGEMAP_SCAN`, Linux 6.7), where it can tell.
    /// Otherwise all pages of the memory are given back.
    pub pagemap_scan: bool,
    /// Written pages up to this many bytes are overwritten in place and stay resident, so that the
    /// next instance need not fault them in; more are given back to the kernel.
    pub keep_resident_bytes: usize,
    /// Off, nothing is reset, and the next instance sees what the last one left. For the test that
    /// shows that the wipe is what erases; never for serving.
    pub enabled: bool,
}

impl Default for WipePolicy {
    fn default() -> Self {
        Self {
            pagemap_scan: true,
            keep_resident_bytes: 1 << 20,
            enabled: true,
        }
    }
}

/// What a reset did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wiped {
    /// Bytes that were written by the guest and overwritten in place.
    pub overwritten_bytes: u64,
    /// Bytes that were given back to the kernel; without `PAGEMAP_SCAN` the whole memory, whether
    /// it was written or not.
    pub returned_bytes: u64,
}

impl Wiped {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.overwritten_bytes + self.returned_bytes
    }
}

thread_local! {
    /// What the last reset on this thread did: wasmtime drops memories, and drops return nothing.
    static LAST: Cell<Wiped> = const { Cell::new(Wiped { overwritten_bytes: 0, returned_bytes: 0 }) };
    /// Whether the memory that this thread drops next has no page that was written for the first time.
    static NO_NEW_PAGES: Cell<bool> = const { Cell::new(false) };
}

/// Says of the memory that this thread drops next that since it was lent no page was written for the
/// first time, so that none need be looked for: see [`super::faults`].
pub(crate) fn no_new_pages() {
    NO_NEW_PAGES.set(true);
}

/// What the last reset on this thread did.
pub(crate) fn last_wipe() -> Wiped {
    LAST.get()
}

/// The slots of one image, as wasmtime's creator of memories.
pub(crate) struct Slots {
    image: Arc<Image>,
    policy: WipePolicy,
    dirty: Option<&'static DirtyPages>,
    free: Mutex<Vec<Slot>>,
}

impl Slots {
    /// No slots yet: they are made when an instance needs one, and kept.
    pub(crate) fn new(image: Arc<Image>, policy: WipePolicy) -> Arc<Self> {
        let dirty = if policy.pagemap_scan {
            DirtyPages::of_process()
        } else {
            None
        };
        Arc::new(Self {
            image,
            policy,
            dirty,
            free: Mutex::default(),
        })
    }

    /// Whether resets ask the kernel which pages were written.
    pub(crate) fn scans_pagemap(&self) -> bool {
        self.dirty.is_some()
    }

    /// The image that all slots begin with.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// What of an instance's memory is as in the image.
    pub(super) fn unwritten(&self, memory: &[u8]) -> Unwritten<'_> {
        Unwritten::new(&self.image, self.dirty, memory.as_ptr().addr())
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        // Slots are pushed and popped whole, so a panic elsewhere leaves the list good.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// wasmtime's view of [`Slots`].
pub(crate) struct Creator(pub(crate) Arc<Slots>);

// SAFETY: the memories are private mappings that nothing but their `SlotMemory` reaches, with
// `reserved + guard` bytes of address space, of which all at and above `byte_size` is inaccessible.
// They begin with the image instead of zeros, on purpose: the module has no data of its own.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let slots = &self.0;
        let reserved = reserved_size_in_bytes.ok_or("memories that move are not supported")?;
        if slots.image.memory_bytes() < minimum || slots.image.memory_bytes() > reserved {
            return Err(format!(
                "image of {} bytes in a memory of {minimum} to {reserved} bytes",
                slots.image.memory_bytes()
            ));
        }
        let free = slots.free().pop();
        let slot = match free {
            Some(slot) => slot,
            None => Slot::map(&slots.image, reserved, guard_size_in_bytes)
                .map_err(|error| format!("cannot map an instance's memory: {error}"))?,
        };
        Ok(Box::new(SlotMemory {
            slot: Some(slot),
            slots: slots.clone(),
        }))
    }
}

/// Address space with an image in it.
struct Slot {
    base: *mut u8,
    /// The address space that is mapped, guard included; `base` lies a little behind its start.
    mapping: *mut u8,
    mapped: usize,
    /// Bytes that may be grown to.
    reserved: usize,
    /// Bytes with access rights.
    accessible: usize,
    /// All pages that were written and kept, as ranges of offsets; `None` where that is not known.
    kept: Option<Vec<Range<usize>>>,
}

// SAFETY: the pointers are to a mapping that the slot owns alone.
unsafe impl Send for Slot {}
// SAFETY: through a shared slot only its numbers can be read.
unsafe impl Sync for Slot {}

impl Slot {
    fn map(image: &Image, reserved: usize, guard: usize) -> rustix::io::Result<Self> {
        let mapped = TABLE_BYTES + reserved + guard;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let mapping: *mut u8 = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                mapped,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
            .cast()
        };
        // A huge page is 512 pages to wipe where one was written. Where there are none, so much the
        // better.
        // SAFETY: the mapping was just made, and advice does not change what it holds.
        unsafe { rustix::mm::madvise(mapping.cast(), mapped, Advice::LinuxNoHugepage).ok() };
        let first = image.pieces().first().map_or(0, |piece| piece.address);
        let apart = mapping.addr() + first.saturating_sub(STACK_BYTES);
        let mut slot = Self {
            base: mapping.wrapping_add(apart.next_multiple_of(TABLE_BYTES) - apart),
            mapping,
            mapped,
            reserved,
            accessible: 0,
            kept: None,
        };
        slot.make_accessible(image.memory_bytes())?;
        for piece in image.pieces() {
            // SAFETY: the pieces of an image lie within its memory, which is within the mapping
            // that was just made and that nobody else has seen.
            unsafe {
                rustix::mm::mmap(
                    slot.at(piece.address),
                    piece.len_bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                    image.file(),
                    piece.file_offset,
                )?;
            }
        }
        Ok(slot)
    }

    fn at(&self, offset: usize) -> *mut c_void {
        self.base.wrapping_add(offset).cast()
    }

    /// Gives access to `bytes` from the base on; takes none away.
    fn make_accessible(&mut self, bytes: usize) -> rustix::io::Result<()> {
        if bytes > self.accessible {
            let (start, len) = (self.at(self.accessible), bytes - self.accessible);
            // SAFETY: the range is within the slot's reservation, above what is in use.
            unsafe {
                rustix::mm::mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            }
            self.accessible = bytes;
        }
        Ok(())
    }

    /// Puts every byte back to what the image says, or to zero where it says nothing. Without new
    /// pages only those that were kept can have been written.
    fn reset(
        &mut self,
        image: &Image,
        dirty: Option<&DirtyPages>,
        keep_resident_bytes: usize,
        no_new_pages: bool,
    ) -> rustix::io::Result<Wiped> {
        let mut wiped = Wiped::default();
        // What was grown goes first, as a whole.
        let image_bytes = image.memory_bytes();
        if self.accessible > image_bytes {
            let (start, len) = (self.at(image_bytes), self.accessible - image_bytes);
            // SAFETY: the range is the slot's, and no instance uses the slot now.
            unsafe {
                rustix::mm::madvise(start, len, Advice::LinuxDontNeed)?;
                rustix::mm::mprotect(start, len, MprotectFlags::empty())?;
            }
            wiped.returned_bytes += len as u64;
            self.accessible = image_bytes;
        }
        let Some(dirty) = dirty else {
            self.give_back(0, image_bytes)?;
            wiped.returned_bytes += image_bytes as u64;
            return Ok(wiped);
        };
        match self.kept.take() {
            Some(kept) if no_new_pages => {
                for range in &kept {
                    self.restore(image, range.clone());
                    wiped.overwritten_bytes += range.len() as u64;
                }
                self.kept = Some(kept);
            }
            _ => wiped = self.reset_written(image, dirty, keep_resident_bytes, wiped)?,
        }
        if image.memory_bytes() >= LARGE_BYTES {
            self.drop_views(image)?;
        }
        Ok(wiped)
    }

    /// Gives the pages of long runs back that no instance wrote; those that were kept stay.
    fn drop_views(&self, image: &Image) -> rustix::io::Result<()> {
        let mut kept = self.kept.iter().flatten().peekable();
        for run in image.long_runs() {
            let (mut start, end) = (run.address, run.address + run.len_bytes);
            while start < end {
                // Kept pages go upwards, as runs do.
                while kept.next_if(|pages| pages.end <= start).is_some() {}
                let next = kept.peek().map_or(end..end, |pages| pages.start..pages.end);
                let until = next.start.clamp(start, end);
                if start < until {
                    self.give_back(start, until - start)?;
                }
                start = next.end.max(until);
            }
        }
        Ok(())
    }

    /// Asks the kernel which pages were written, and resets them.
    fn reset_written(
        &mut self,
        image: &Image,
        dirty: &DirtyPages,
        keep_resident_bytes: usize,
        mut wiped: Wiped,
    ) -> rustix::io::Result<Wiped> {
        let base = self.base.addr();
        let mut kept = Vec::new();
        dirty.for_each_range(base, base + image.memory_bytes(), |start, end| {
            let (offset, len) = (start - base, end - start);
            let budget = keep_resident_bytes - wiped.overwritten_bytes as usize;
            let overwritten = len.min(budget);
            if overwritten > 0 {
                self.restore(image, offset..offset + overwritten);
                wiped.overwritten_bytes += overwritten as u64;
                kept.push(offset..offset + overwritten);
            }
            if overwritten < len {
                self.give_back(offset + overwritten, len - overwritten)?;
                wiped.returned_bytes += (len - overwritten) as u64;
            }
            Ok(())
        })?;
        self.kept = Some(kept);
        Ok(wiped)
    }

    /// Overwrites pages with the image's content.
    fn restore(&self, image: &Image, pages: Range<usize>) {
        // SAFETY: ranges of pages come from the kernel, which names those within what it was asked
        // about, the slot's accessible memory; no instance uses the slot now.
        let memory =
            unsafe { std::slice::from_raw_parts_mut(self.base.add(pages.start), pages.len()) };
        image.restore(pages.start, memory);
    }

    /// Gives written pages back to the kernel: the mapping shows file or zeros again.
    fn give_back(&self, offset: usize, len: usize) -> rustix::io::Result<()> {
        // SAFETY: the range is the slot's, and no instance uses the slot now.
        unsafe { rustix::mm::madvise(self.at(offset), len, Advice::LinuxDontNeed) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the mapping is the slot's own, and the slot is going.
        let unmapped = unsafe { rustix::mm::munmap(self.mapping.cast(), self.mapped) };
        if unmapped.is_err() {
            // Somebody's data would stay in the process: then there must be no process.
            std::process::abort();
        }
    }
}

/// A slot on loan to an instance; dropping it resets the slot.
struct SlotMemory {
    /// Present until dropped.
    slot: Option<Slot>,
    slots: Arc<Slots>,
}

impl SlotMemory {
    fn slot(&self) -> &Slot {
        self.slot
            .as_ref()
            .expect("the slot is there until the memory is dropped")
    }
}

// SAFETY: base and size are those of a slot that this memory owns until it is dropped; see
// `Creator` for its layout.
unsafe impl LinearMemory for SlotMemory {
    fn byte_size(&self) -> usize {
        self.slot().accessible
    }

    fn byte_capacity(&self) -> usize {
        self.slot().reserved
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let slot = self
            .slot
            .as_mut()
            .expect("the slot is there until the memory is dropped");
        if new_size > slot.reserved {
            wasmtime::bail!("{new_size} bytes in a slot of {}", slot.reserved);
        }
        Ok(slot.make_accessible(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.slot().base
    }
}

impl Drop for SlotMemory {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else {
            return;
        };
        let slots = &self.slots;
        let mut wiped = Wiped::default();
        let no_new_pages = NO_NEW_PAGES.take();
        if slots.policy.enabled {
            let keep = slots.policy.keep_resident_bytes;
            match slot.reset(&slots.image, slots.dirty, keep, no_new_pages) {
                Ok(reset) => wiped = reset,
                // Unmapping erases as well; the next instance gets a new slot.
                Err(_) => return,
            }
        }
        LAST.set(wiped);
        slots.free().push(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lethe_engine::kernels::offload::Constants;

    use super::*;

    /// Bytes of a slot's first `len` that count as resident memory of this process.
    fn resident_bytes(slot: &Slot, len: usize) -> usize {
        let mappings = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut start, mut resident) = (0, 0);
        for line in mappings.lines() {
            if let Some((first, _)) = line.split_once('-')
                && let Ok(first) = usize::from_str_radix(first, 16)
            {
                start = first;
            } else if let Some(size) = line.strip_prefix("Rss:") {
                let kilobytes = size.trim().strip_suffix(" kB").unwrap();
                let is_in_slot = (slot.base.addr()..slot.base.addr() + len).contains(&start);
                resident += kilobytes.parse::<usize>().unwrap() * 1024 * usize::from(is_in_slot);
            }
        }
        resident
    }

    #[test]
    fn weights_stay_what_they_are_when_their_view_is_dropped() {
        // Behind the weights, in a piece of its own, a page that is too small to be constant.
        let mut memory = vec![7u8; LARGE_BYTES + (1 << 20)];
        let weights = LARGE_BYTES;
        memory[weights..].fill(0);
        memory[weights + (1 << 19)] = 1;
        let image = Image::in_memory(&memory, &[]).unwrap();
        const KEPT: usize = 3 * HOST_PAGE;
        for dirty in [DirtyPages::of_process(), None] {
            let resident = if dirty.is_some() { KEPT } else { 0 };
            let mut slot = Slot::map(&image, 1 << 30, 1 << 20).unwrap();
            for reset in 1..=3 {
                // SAFETY: all of the image is accessible, and nobody else has the slot.
                let bytes = unsafe { std::slice::from_raw_parts_mut(slot.base, memory.len()) };
                for at in [0, weights / 2 + 1, weights - 1, weights, memory.len() - 1] {
                    bytes[at] = 0xee;
                }
                slot.reset(&image, dirty, KEPT, false).unwrap();
                assert_eq!(
                    resident_bytes(&slot, weights),
                    resident,
                    "after {reset} resets"
                );
                // SAFETY: as above; the slice before is not used any more.
                let bytes = unsafe { std::slice::from_raw_parts(slot.base, memory.len()) };
                assert!(bytes == memory, "after {reset} resets");
            }
        }
    }

    #[test]
    fn what_was_written_is_not_read_from_the_image() {
        let Some(dirty) = DirtyPages::of_process() else {
            eprintln!("skipped: this kernel has no PAGEMAP_SCAN");
            return;
        };
        const PAGES: usize = 64;
        let memory = [7u8; PAGES * HOST_PAGE];
        let image = Image::in_memory(&memory, &[]).unwrap();
        let mut slot = Slot::map(&image, 1 << 30, 1 << 20).unwrap();
        let found = |slot: &Slot, dirty, first: usize, pages: usize| {
            let unwritten = Unwritten::new(&image, dirty, slot.base.addr());
            let bytes = unwritten.find(first * HOST_PAGE + 4, pages * HOST_PAGE - 8);
            assert!(bytes.is_none_or(|bytes| bytes == &memory[4..pages * HOST_PAGE - 4]));
            bytes.is_some()
        };
        let write = |slot: &Slot, page: usize| {
            // SAFETY: all of the image is accessible, and nobody else has the slot.
            unsafe { slot.base.add(page * HOST_PAGE).write(0xee) };
        };
        assert!(found(&slot, Some(dirty), 0, PAGES));
        assert!(!found(&slot, None, 0, PAGES), "nobody to ask");
        write(&slot, 20);
        for (first, pages, unwritten) in [
            (0, PAGES, false),
            (4, 17, false),
            (0, 20, true),
            (21, 20, true),
        ] {
            assert_eq!(
                found(&slot, Some(dirty), first, pages),
                unwritten,
                "{pages} pages at {first}"
            );
        }
        // A page that is kept is the instance's own, though it has the image's content; one that was
        // given back is the image's again.
        write(&slot, 50);
        slot.reset(&image, Some(dirty), HOST_PAGE, false).unwrap();
        assert!(!found(&slot, Some(dirty), 0, 40));
        assert!(found(&slot, Some(dirty), 21, 40));
    }

    #[test]
    fn without_new_pages_those_that_were_kept_are_reset() {
        let Some(dirty) = DirtyPages::of_process() else {
            eprintln!("skipped: this kernel has no PAGEMAP_SCAN");
            return;
        };
        let mut memory = vec![0u8; 1 << 20];
        memory[5 * HOST_PAGE] = 7;
        let image = Image::in_memory(&memory, &[]).unwrap();
        let mut slot = Slot::map(&image, 1 << 30, 1 << 20).unwrap();
        let write_and_reset = |slot: &mut Slot, pages: &[usize], no_new_pages| {
            // SAFETY: all of the image is accessible, and nobody else has the slot.
            let bytes = unsafe { std::slice::from_raw_parts_mut(slot.base, memory.len()) };
            for page in pages {
                bytes[page * HOST_PAGE] = 0xee;
            }
            let wiped = slot.reset(&image, Some(dirty), 2 * HOST_PAGE, no_new_pages);
            // SAFETY: as above; the slice before is not used any more.
            let bytes = unsafe { std::slice::from_raw_parts(slot.base, memory.len()) };
            (bytes == memory, wiped.unwrap().bytes() / HOST_PAGE as u64)
        };
        // Nothing is known of a slot that was never reset, whatever is said of it.
        assert_eq!(write_and_reset(&mut slot, &[5, 100, 101], true), (true, 3));
        // Two of the pages were kept, and are written again without a fault.
        assert_eq!(write_and_reset(&mut slot, &[5, 100], true), (true, 2));
        // Who says so without reason leaves something: that is what the count of faults is for.
        assert_eq!(write_and_reset(&mut slot, &[101], true), (false, 2));
        assert_eq!(write_and_reset(&mut slot, &[], false), (true, 3));
    }
}
