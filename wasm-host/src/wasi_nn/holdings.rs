//! What a guest holds in the host: counted when it is made, and given back when it is dropped.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::NnError;

/// What a guest may hold in the host at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldingLimits {
    /// Loaded models, the same one counted as often as it is loaded.
    pub graphs: u64,
    /// Execution contexts.
    pub contexts: u64,
    /// Tensors.
    pub tensors: u64,
    /// Bytes of tensors, and of models that the guest brought.
    pub bytes: u64,
}

impl Default for HoldingLimits {
    fn default() -> Self {
        Self {
            graphs: 16,
            contexts: 64,
            tensors: 1024,
            bytes: 1 << 30,
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Loaded models.
    Graphs,
    /// Execution contexts.
    Contexts,
    /// Tensors.
    Tensors,
    /// Bytes of tensors and models.
    Bytes,
}

impl Held {
    fn limit(self, limits: &HoldingLimits) -> u64 {
        match self {
            Self::Graphs => limits.graphs,
            Self::Contexts => limits.contexts,
            Self::Tensors => limits.tensors,
            Self::Bytes => limits.bytes,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graphs => "graphs",
            Self::Contexts => "execution contexts",
            Self::Tensors => "tensors",
            Self::Bytes => "bytes",
        })
    }
}

/// The counts of one guest.
#[derive(Debug)]
pub struct Holdings {
    limits: HoldingLimits,
    /// By [`Held`].
    counts: Mutex<[u64; 4]>,
}

impl Holdings {
    /// Nothing held yet.
    pub fn new(limits: HoldingLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            counts: Mutex::default(),
        })
    }

    /// Counts `amount` more until the share is dropped.
    ///
    /// # Errors
    /// [`NnError::Limit`] when that is more than the guest may hold.
    pub fn take(self: &Arc<Self>, held: Held, amount: u64) -> Result<Share, NnError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = &mut counts[held as usize];
        let found = count.saturating_add(amount);
        let limit = held.limit(&self.limits);
        if found > limit {
            return Err(NnError::Limit { held, limit, found });
        }
        *count = found;
        Ok(Share {
            holdings: self.clone(),
            held,
            amount,
        })
    }
}

/// Something that a guest holds.
#[derive(Debug)]
pub struct Share {
    holdings: Arc<Holdings>,
    held: Held,
    amount: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let counts = &self.holdings.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts[self.held as usize] -= self.amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_had_again() {
        let limits = HoldingLimits {
            bytes: 10,
            ..HoldingLimits::default()
        };
        let holdings = Holdings::new(limits);
        let first = holdings.take(Held::Bytes, 6).unwrap();
        let error = holdings.take(Held::Bytes, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bytes held: expected at most 10, found 11"
        );
        assert!(holdings.take(Held::Bytes, u64::MAX).is_err());
        drop(first);
        assert!(holdings.take(Held::Bytes, 10).is_ok());
    }
}
