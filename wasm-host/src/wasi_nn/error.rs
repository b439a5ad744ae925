//! What a guest is told when it does not get what it asked for.

use lethe_engine::ValueKind;
use lethe_server::Problem;

use super::holdings::Held;
use super::{ErrorCode, GraphEncoding};
use crate::settings::SettingsError;

/// Longest text that a guest gets, in bytes: names in it are the guest's own.
const MOST_BYTES: usize = 4096;

/// Why a call of `wasi:nn` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A model in another format.
    #[error("graph encoding: expected onnx or autodetect, found {}", encoding_name(*found))]
    Encoding {
        /// The format.
        found: GraphEncoding,
    },
    /// A model in several pieces, or in none.
    #[error("graph builder: expected 1 buffer, found {found}")]
    Buffers {
        /// Their number.
        found: usize,
    },
    /// A device that no build of Lethe has.
    #[error("execution target: expected cpu or gpu, found tpu")]
    Target,
    /// A device that is not there.
    #[error("execution target: {0}")]
    Device(#[from] SettingsError),
    /// More than the guest may hold.
    #[error("{held} held: expected at most {limit}, found {found}")]
    Limit {
        /// Of what.
        held: Held,
        /// As many may be held.
        limit: u64,
        /// As many would have been held.
        found: u64,
    },
    /// A tensor whose dimensions, type and bytes do not belong together.
    #[error("input {name:?}: {reason}")]
    Tensor {
        /// The input's name.
        name: String,
        /// Expected and found.
        reason: String,
    },
    /// An output that `wasi:nn` has no type for.
    #[error(
        "output {name:?}: expected a tensor of float16, float, double, bfloat16, uint8, int32 or int64, found {found}"
    )]
    OutputType {
        /// The output's name.
        name: String,
        /// What it is.
        found: ValueKind,
    },
    /// The model could not be loaded or run.
    #[error("{}", .0.detail)]
    Model(#[from] Problem),
    /// The thread that worked for the guest ended early: a defect in Lethe.
    #[error("the run came to no end")]
    Lost,
}

impl NnError {
    /// The stable code of Lethe, which every door shows.
    pub fn lethe_code(&self) -> &str {
        match self {
            Self::Encoding { .. } => "LETHE-NN-ENCODING",
            Self::Buffers { .. } => "LETHE-NN-BUFFERS",
            Self::Target | Self::Device(_) => "LETHE-DEVICE",
            Self::Limit { .. } => "LETHE-NN-LIMIT",
            Self::Tensor { .. } => "LETHE-INPUT-SHAPE",
            Self::OutputType { .. } => "LETHE-NN-OUTPUT-TYPE",
            Self::Model(problem) => &problem.code,
            Self::Lost => "LETHE-INTERNAL",
        }
    }

    /// The code of `wasi:nn`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Encoding { .. } => ErrorCode::InvalidEncoding,
            Self::Buffers { .. } | Self::Tensor { .. } => ErrorCode::InvalidArgument,
            Self::Target | Self::Device(_) | Self::OutputType { .. } => {
                ErrorCode::UnsupportedOperation
            }
            Self::Limit { .. } => ErrorCode::TooLarge,
            Self::Model(problem) => code_of(&problem.code),
            Self::Lost => ErrorCode::RuntimeError,
        }
    }

    /// A sentence with Lethe's code, of bounded length.
    pub fn data(&self) -> String {
        let (mut text, code) = (self.to_string(), self.lethe_code());
        if text.len() > MOST_BYTES {
            text.truncate(text.floor_char_boundary(MOST_BYTES));
            text.push('…');
        }
        format!("{text} [{code}]")
    }
}

/// The code of `wasi:nn` for one of the engine or of a sandbox.
fn code_of(code: &str) -> ErrorCode {
    let about = code.strip_prefix("LETHE-").unwrap_or(code);
    match about {
        "MODEL-UNKNOWN" => ErrorCode::NotFound,
        "MODEL-MALFORMED" | "MODEL-INVALID" | "MODEL-EXTERNAL-DATA" => ErrorCode::InvalidEncoding,
        "OPERATOR-UNKNOWN" | "UNSUPPORTED" | "DEVICE" => ErrorCode::UnsupportedOperation,
        "MODEL-SIZE" | "BUDGET" | "MEMORY-LIMIT" => ErrorCode::TooLarge,
        "DEADLINE" | "CANCELLED" => ErrorCode::Timeout,
        _ if about.starts_with("INPUT-") || about.starts_with("NODE-") => {
            ErrorCode::InvalidArgument
        }
        _ => ErrorCode::RuntimeError,
    }
}

/// The format's name as it is in `wasi:nn`.
fn encoding_name(encoding: GraphEncoding) -> &'static str {
    match encoding {
        GraphEncoding::Openvino => "openvino",
        GraphEncoding::Onnx => "onnx",
        GraphEncoding::Tensorflow => "tensorflow",
        GraphEncoding::Pytorch => "pytorch",
        GraphEncoding::Tensorflowlite => "tensorflowlite",
        GraphEncoding::Ggml => "ggml",
        GraphEncoding::Autodetect => "autodetect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_keep_their_code() {
        let error = NnError::Tensor {
            name: "é".repeat(1 << 20),
            reason: String::new(),
        };
        let data = error.data();
        assert!(data.len() < MOST_BYTES + 64, "{} bytes", data.len());
        assert!(data.ends_with("… [LETHE-INPUT-SHAPE]"));
    }
}
