//! What an instance's memory still shares with its image, read from the image.
//!
//! A slot's view of the weights is its own, and whatever counts the resident memory of a process
//! counts each view. Native kernels that read weights from the one mapping of the image leave the
//! slots' views empty. Nothing says of an image which of its bytes are weights: pages that a model's
//! loading has used and freed look the same. So the kernel is asked whether the instance wrote there;
//! where it did not, image and memory are the same bytes.

use lethe_engine::kernels::offload::Constants;

use super::dirty::DirtyPages;
use super::image::Image;

/// The pages of an instance's memory that it did not write.
pub(super) struct Unwritten<'a> {
    image: &'a Image,
    dirty: Option<&'a DirtyPages>,
    base: usize,
}

impl<'a> Unwritten<'a> {
    /// Those of a memory at `base` that began as `image`. Without a way to ask, there are none.
    pub(super) fn new(image: &'a Image, dirty: Option<&'a DirtyPages>, base: usize) -> Self {
        Self { image, dirty, base }
    }
}

impl Constants for Unwritten<'_> {
    fn find(&self, address: usize, len_bytes: usize) -> Option<&[u8]> {
        let dirty = self.dirty?;
        let content = self.image.long_run(address, len_bytes)?;
        let start = self.base + address;
        let written = dirty.any(start, start + len_bytes);
        // Where the kernel cannot say, the memory itself is read.
        (written == Ok(false)).then_some(content)
    }
}
