//! The import module `lethe:kernels`: the host's kernels on the guest's memory.
//!
//! The guest says what to compute in words ([`lethe_engine::kernels::offload`]), which are checked
//! as those of an adversary. What the instance did not write is read from the image, which all
//! instances share. The kernels keep no state; what they leave in the host's scratch memory is wiped
//! when the instance is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lethe_engine::kernels::env::Env;
use lethe_engine::kernels::offload;
use lethe_engine::limits::{self, Ended, Limits};
use wasmtime::{Caller, Extern, Linker, Trap};

use super::cell::{CellState, Shared};
use crate::guest::KERNELS;

/// More words than any call has.
const MAX_WORDS: usize = 256;

/// The tile that guests pack their operands in for these kernels.
pub(super) fn tile(env: &Env) -> (u32, u32) {
    let (rows, columns) = lethe_engine::kernels::gemm::tile_shape(env.level);
    (rows as u32, columns as u32)
}

/// Defines the imports.
pub(super) fn define(linker: &mut Linker<CellState>) -> wasmtime::Result<()> {
    linker.func_wrap(KERNELS, "compute", compute)?;
    Ok(())
}

fn compute(mut caller: Caller<'_, CellState>, address: u32, count: u32) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the guest has no memory");
    };
    let (memory, state) = memory.data_and_store_mut(&mut caller);
    let (address, count) = (address as usize, count as usize);
    let bytes = memory.get(address..).and_then(|rest| rest.get(..4 * count));
    let (Some(bytes), true) = (bytes, count <= MAX_WORDS) else {
        wasmtime::bail!("a kernel call outside of the memory");
    };
    // The words are copied first: the kernel may write anywhere in the guest's memory.
    let mut words = [0u32; MAX_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    state.computed = true;
    // Kernels assert what their callers promise; a guest promises nothing.
    let limits = Limits {
        memory_bytes: state.memory_limit_bytes as u64,
        stop: state.stop_of_kernels.clone(),
    };
    let done = catch_unwind(AssertUnwindSafe(|| {
        let Shared { env, slots } = &*state.shared;
        let unwritten = slots.unwritten(memory);
        let perform = || offload::perform(env, memory, &unwritten, &words[..count]);
        limits::within(limits, || limits::until_ended(perform))
    }));
    match done {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(Ended::Stopped)) => Err(Trap::Interrupt.into()),
        Ok(Err(Ended::Shortage(shortage))) => wasmtime::bail!("a kernel call takes {shortage}"),
        Err(_) => wasmtime::bail!("a kernel call whose sizes do not fit each other"),
    }
}
