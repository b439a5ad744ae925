//! What is done to a model's graph before it runs.

use lethe_engine::SessionOptions;
use serde::{Deserialize, Serialize};

/// What is done to a model's graph before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSettings {
    /// It is rewritten (folded, fused).
    pub fusion: bool,
    /// Weights of products are kept as bytes, which makes answers approximate. A rewrite, too.
    pub quantization: bool,
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self {
            fusion: true,
            quantization: false,
        }
    }
}

impl GraphSettings {
    /// The same for a model that runs in this process.
    pub fn put_into(self, options: &mut SessionOptions<'_>) {
        options.rewrite = self.fusion;
        options.quantize = self.quantization;
    }
}
