//! What the operators of `ai.lethe` do after their sums: an activation, named by attributes.
//!
//! `activation` is `Relu`, `Clip`, `LeakyRelu`, `HardSigmoid` or `HardSwish`, and
//! `activation_params` has its numbers: `[min, max]`, `[alpha]` or `[alpha, beta]`.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::gemm::Activation;

/// The activation of a fused node; none where there is no such attribute.
///
/// # Errors
/// When it is unknown or has too few numbers.
pub(super) fn activation(node: &Attributes) -> Result<Activation, OpError> {
    let params = node.optional_floats("activation_params")?.unwrap_or(&[]);
    Ok(match (node.string_or("activation", "")?, params) {
        ("", _) => Activation::None,
        ("Relu", _) => Activation::Relu,
        ("Clip", &[min, max]) => Activation::Clip { min, max },
        ("LeakyRelu", &[alpha]) => Activation::LeakyRelu { alpha },
        ("HardSigmoid", &[alpha, beta]) => Activation::HardSigmoid { alpha, beta },
        ("HardSwish", _) => Activation::HardSwish,
        (other, params) => {
            return Err(OpError::Attribute {
                name: "activation".into(),
                expected: "a known activation with its numbers".into(),
                found: format!("{other:?} with {params:?}"),
            });
        }
    })
}
