//! An instance that is kept: for one client whose requests share it, and to measure what a fresh one
//! costs.
//!
//! What calls leave in its memory stays there until it is dropped, when its slot is reset as any
//! other's. What they leave elsewhere, on the stack and in the scratch memory of native kernels, is
//! wiped after each.

use std::sync::Arc;
use std::time::Instant;

use lethe_server::message::{Answer, Call};
use lethe_server::{Problem, Request, Response};
use zeroize::Zeroizing;

use super::cell::{Cell, Cells};
use super::slots::last_wipe;
use super::{CallControl, CallReport, CellError, Wiped, response_in, wiped_bytes};

/// An instance that answers one call after the other.
pub struct KeptCell {
    cell: Cell,
    cells: Arc<Cells>,
}

impl std::fmt::Debug for KeptCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptCell").finish_non_exhaustive()
    }
}

impl KeptCell {
    pub(super) fn new(cells: &Arc<Cells>) -> Result<Self, CellError> {
        Ok(Self {
            cell: cells.instantiate()?,
            cells: cells.clone(),
        })
    }

    /// The instance's memory, for audits and tests.
    pub fn memory(&self) -> &[u8] {
        self.cell.memory()
    }

    /// Answers a message and wipes nothing: to measure.
    ///
    /// # Errors
    /// When the guest traps, takes too long or wants too much memory.
    pub fn call(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, CellError> {
        self.cells.begin(&mut self.cell, &CallControl::default());
        self.cells.handle(&mut self.cell, message)
    }

    /// Answers an HTTP request for inference, within the limits of one request, and gives the
    /// instance back with the answer. An instance that was stopped is dropped instead: nobody knows
    /// what it would answer next.
    pub fn handle(
        mut self,
        request: &Request<'_>,
        control: &CallControl,
    ) -> (Result<(Self, Response), CellError>, CallReport) {
        let start = Instant::now();
        let message = Zeroizing::new(Call::encode_http(request));
        let answer = self.cells.call_again(&mut self.cell, &message, control);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let wiped = self.end();
                let elapsed = start.elapsed();
                return (Err(error), CallReport { elapsed, wiped });
            }
        };
        let report = CallReport {
            elapsed: start.elapsed(),
            wiped: Wiped::default(),
        };
        let response = match Answer::decode(wiped_bytes(answer)) {
            Ok(answer) => response_in(answer),
            Err(error) => Problem::from(error).into(),
        };
        (Ok((self, response)), report)
    }

    /// Drops the instance and says what was wiped.
    pub fn end(self) -> Wiped {
        drop(self.cell);
        last_wipe()
    }
}
