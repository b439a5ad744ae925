//! Handing the hot kernels to the host: the import module `lethe:kernels`.
//!
//! The host sees addresses and sizes, checks them, and computes on this guest's memory. Where the
//! door is closed the import is a trap; then no image is made that would call it.
#![expect(
    unsafe_code,
    reason = "an import is unsafe to call, as far as Rust knows"
)]

use lethe_engine::kernels::offload::{Host, install as install_host};

#[link(wasm_import_module = "lethe:kernels")]
unsafe extern "C" {
    /// Computes the kernel call that `count` words at `words` describe.
    fn compute(words: *const u32, count: u32);
}

/// Hands the kernels to the host from now on, which packs operands in such tiles.
pub(crate) fn install(tile_shape: (usize, usize)) {
    install_host(Host {
        tile_shape,
        compute: |words| {
            // SAFETY: the host reads `words`, which are there, and writes nowhere but to the
            // output that they name, which the caller of the kernel holds alone.
            unsafe { compute(words.as_ptr(), words.len() as u32) }
        },
    });
}
