//! What a kernel computes with.

use super::threads::Threads;
use crate::isa::{self, Kernel, Level, Numerics};

/// The execution environment of kernels. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    /// The instruction set.
    pub level: Level,
    /// How exactly results are defined.
    pub numerics: Numerics,
    /// The threads that share the work.
    pub threads: Threads,
}

impl Env {
    /// The machine's best instruction set, fast numerics, one thread.
    pub fn new() -> Env {
        Env {
            level: Level::best(),
            numerics: Numerics::Fast,
            threads: Threads::single(),
        }
    }

    /// Runs a kernel on the calling thread with this environment's instructions and numerics.
    #[inline]
    pub fn dispatch<K: Kernel>(&self, kernel: K) -> K::Output {
        isa::dispatch(self.level, self.numerics, kernel)
    }
}

impl Default for Env {
    fn default() -> Env {
        Env::new()
    }
}
