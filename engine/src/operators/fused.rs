//! What the operators of `ai.lethe` do after their sums: an activation, named by attributes.
//!
//! `activation` is the name of a unary operator and `activation_params` has its numbers:
//! `[min, max]` for `Clip`, `[alpha]` for `LeakyRelu`, `[alpha, beta]` for `HardSigmoid`.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::Unary;
use crate::kernels::gemm::Activation;

/// An activation, as the kernels of f32 and as sums of other types take it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct AfterSum {
    /// For kernels that apply it while they write.
    pub(super) inline: Activation,
    function: Option<Unary>,
}

impl AfterSum {
    /// The activation of a fused node; none where there is no such attribute.
    ///
    /// # Errors
    /// When it is unknown or has too few numbers.
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let params = node.optional_floats("activation_params")?.unwrap_or(&[]);
        let (inline, function) = match (node.string_or("activation", "")?, params) {
            ("", _) => return Ok(Self::default()),
            ("Relu", _) => (Activation::Relu, Unary::Relu),
            ("Clip", &[min, max]) => (Activation::Clip { min, max }, Unary::Clip { min, max }),
            ("LeakyRelu", &[alpha]) => {
                (Activation::LeakyRelu { alpha }, Unary::LeakyRelu { alpha })
            }
            ("HardSigmoid", &[alpha, beta]) => (
                Activation::HardSigmoid { alpha, beta },
                Unary::HardSigmoid { alpha, beta },
            ),
            ("HardSwish", _) => (Activation::HardSwish, Unary::HardSwish),
            ("Sigmoid", _) => (Activation::Sigmoid, Unary::Sigmoid),
            ("Silu", _) => (Activation::Silu, Unary::Silu),
            ("Tanh", _) => (Activation::Tanh, Unary::Tanh),
            ("Gelu", _) => (Activation::Gelu, Unary::Gelu),
            ("GeluTanh", _) => (Activation::GeluTanh, Unary::GeluTanh),
            ("Elu", &[alpha]) => (Activation::Elu { alpha }, Unary::Elu { alpha }),
            ("Softplus", _) => (Activation::Softplus, Unary::Softplus),
            ("Mish", _) => (Activation::Mish, Unary::Mish),
            (other, params) => {
                return Err(OpError::Attribute {
                    name: "activation".into(),
                    expected: "a known activation with its numbers".into(),
                    found: format!("{other:?} with {params:?}"),
                });
            }
        };
        Ok(Self {
            inline,
            function: Some(function),
        })
    }

    /// Whether there is nothing to do.
    pub(super) fn is_none(&self) -> bool {
        self.function.is_none()
    }

    /// The function in double precision, for sums that no kernel finishes.
    pub(super) fn double(&self, x: f64) -> f64 {
        self.function.map_or(x, |function| function.double(x))
    }
}
