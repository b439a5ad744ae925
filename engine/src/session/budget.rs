//! What a model and its runs may take.

use crate::error::Error;
use crate::limits::{self, Limits, Stop};

/// Limits on what a model or a run may take, checked before anything is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of a run's arena, and of any one tensor.
    pub memory_bytes: u64,
    /// Nodes of a model after functions are inlined.
    pub nodes: usize,
    /// Depth of subgraphs and functions.
    pub nesting: usize,
}

impl Default for Budget {
    fn default() -> Self {
        // A wasm32 guest cannot address more than 4 GiB anyway.
        let memory_bytes = if cfg!(target_pointer_width = "32") {
            3 << 30
        } else {
            64 << 30
        };
        Self {
            memory_bytes,
            nodes: 1_000_000,
            nesting: 64,
        }
    }
}

impl Budget {
    pub(crate) fn check_nesting(&self, depth: usize) -> Result<(), Error> {
        Self::check("nesting", depth, self.nesting)
    }

    pub(crate) fn check_nodes(&self, nodes: usize) -> Result<(), Error> {
        Self::check("nodes", nodes, self.nodes)
    }

    /// Does `work` with so much memory at most.
    pub(crate) fn keep<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let limits = Limits {
            memory_bytes: self.memory_bytes,
            stop: Stop::default(),
        };
        limits::within(limits, || limits::until_ended(work))?
    }

    fn check(what: &'static str, needed: usize, limit: usize) -> Result<(), Error> {
        if needed <= limit {
            return Ok(());
        }
        Err(Error::Budget {
            what,
            needed: needed as u64,
            limit: limit as u64,
        })
    }
}
