//! Activations with attributes: LeakyRelu, Elu, Selu, Celu, ThresholdedRelu, HardSigmoid, Gelu,
//! Swish and QuickGelu.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset (contrib:
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).
//! Shapes: `X: [..]` → `Y: [..]`. Types: f32, f64, f16, bf16 (computed in f32).

use super::real_functions::RealFunction;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::Unary;

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident($node:ident) => $function:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse($node: &Attributes) -> Result<RealFunction, OpError> {
                Ok(RealFunction($function))
            }
        }
    )*};
}

activations! {
    /// `x` for `x >= 0`, otherwise `alpha x`.
    LeakyRelu(node) => Unary::LeakyRelu { alpha: node.float_or("alpha", 0.01)? };
    /// `x` for `x > 0`, otherwise `alpha (e^x - 1)`.
    Elu(node) => Unary::Elu { alpha: node.float_or("alpha", 1.0)? };
    /// `x` for `x > 0`, otherwise `alpha (e^(x/alpha) - 1)`.
    Celu(node) => Unary::Celu { alpha: node.float_or("alpha", 1.0)? };
    /// `gamma x` for `x > 0`, otherwise `gamma alpha (e^x - 1)`.
    Selu(node) => {
        // Opset 1 had rounded defaults.
        let (alpha, gamma) =
            if node.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
        Unary::Selu { alpha: node.float_or("alpha", alpha)?, gamma: node.float_or("gamma", gamma)? }
    };
    /// `x` for `x > alpha`, otherwise 0.
    ThresholdedRelu(node) => Unary::ThresholdedRelu { alpha: node.float_or("alpha", 1.0)? };
    /// `alpha x + beta`, limited to 0..1.
    HardSigmoid(node) => Unary::HardSigmoid {
        alpha: node.float_or("alpha", 0.2)?,
        beta: node.float_or("beta", 0.5)?,
    };
    /// `x Sigmoid(alpha x)`.
    Swish(node) => match node.float_or("alpha", 1.0)? {
        1.0 => Unary::Silu,
        alpha => Unary::Swish { alpha },
    };
    /// `x Sigmoid(alpha x)` with another default.
    QuickGelu(node) => Unary::Swish { alpha: node.float_or("alpha", 1.702)? };
    /// `x/2 (1 + erf(x/√2))`, or its approximation by tanh.
    Gelu(node) => match node.string_or("approximate", "none")? {
        "none" => Unary::Gelu,
        "tanh" => Unary::GeluTanh,
        other => return Err(OpError::Attribute {
            name: "approximate".into(),
            expected: "none or tanh".into(),
            found: other.into(),
        }),
    };
}
