//! The activations that recurrent layers take by name.

use super::Kind;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Unary, map};
use crate::kernels::env::Env;

/// `outer_scale · f(inner_scale · x) + shift`, which covers all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GateActivation {
    function: Option<Unary>,
    inner_scale: f32,
    outer_scale: f32,
    shift: f32,
}

impl GateActivation {
    /// Applies the function to every element.
    pub(super) fn apply(&self, env: &Env, x: &mut [f32]) {
        if self.inner_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= self.inner_scale);
        }
        if let Some(function) = self.function {
            map(env, function, None, x);
        }
        if self.outer_scale != 1.0 || self.shift != 0.0 {
            x.iter_mut()
                .for_each(|x| *x = self.outer_scale * *x + self.shift);
        }
    }

    fn of(function: Unary) -> Self {
        Self {
            function: Some(function),
            inner_scale: 1.0,
            outer_scale: 1.0,
            shift: 0.0,
        }
    }
}

/// Numbers are consumed in the order of the functions that take any.
struct Numbers<'a> {
    alphas: std::slice::Iter<'a, f32>,
    betas: std::slice::Iter<'a, f32>,
}

impl Numbers<'_> {
    fn alpha(&mut self, default: f32) -> f32 {
        self.alphas.next().copied().unwrap_or(default)
    }

    fn beta(&mut self, default: f32) -> f32 {
        self.betas.next().copied().unwrap_or(default)
    }
}

fn named(name: &str, numbers: &mut Numbers<'_>) -> Result<GateActivation, OpError> {
    let of = GateActivation::of;
    Ok(match name.to_ascii_lowercase().as_str() {
        "sigmoid" => of(Unary::Sigmoid),
        "tanh" => of(Unary::Tanh),
        "relu" => of(Unary::Relu),
        "softsign" => of(Unary::Softsign),
        "softplus" => of(Unary::Softplus),
        "leakyrelu" => of(Unary::LeakyRelu {
            alpha: numbers.alpha(0.01),
        }),
        "thresholdedrelu" => of(Unary::ThresholdedRelu {
            alpha: numbers.alpha(1.0),
        }),
        "elu" => of(Unary::Elu {
            alpha: numbers.alpha(1.0),
        }),
        "hardsigmoid" => of(Unary::HardSigmoid {
            alpha: numbers.alpha(0.2),
            beta: numbers.beta(0.5),
        }),
        "scaledtanh" => GateActivation {
            outer_scale: numbers.alpha(1.0),
            inner_scale: numbers.beta(1.0),
            ..of(Unary::Tanh)
        },
        "affine" => GateActivation {
            function: None,
            inner_scale: 1.0,
            outer_scale: numbers.alpha(1.0),
            shift: numbers.beta(0.0),
        },
        _ => {
            return Err(OpError::Attribute {
                name: "activations".into(),
                expected: "known activations".into(),
                found: name.into(),
            });
        }
    })
}

/// Three activations for each direction; those that a kind does not use are there all the same.
pub(super) fn parse(
    node: &Attributes,
    kind: Kind,
    directions: usize,
) -> Result<Vec<GateActivation>, OpError> {
    let count = kind.activations();
    let default: &[&str] = match kind {
        Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Kind::Gru => &["Sigmoid", "Tanh"],
        Kind::Rnn => &["Tanh"],
    };
    let names: Vec<&str> = match node.optional_strings("activations")? {
        Some(names) if !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => default.repeat(directions),
    };
    if names.len() != count * directions {
        return Err(OpError::Attribute {
            name: "activations".into(),
            expected: format!("{} names", count * directions),
            found: format!("{} names", names.len()),
        });
    }
    let mut numbers = Numbers {
        alphas: node
            .optional_floats("activation_alpha")?
            .unwrap_or(&[])
            .iter(),
        betas: node
            .optional_floats("activation_beta")?
            .unwrap_or(&[])
            .iter(),
    };
    let mut all = Vec::new();
    for names in names.chunks(count) {
        for name in names {
            all.push(named(name, &mut numbers)?);
        }
        all.extend(std::iter::repeat_n(
            GateActivation::of(Unary::Tanh),
            3 - count,
        ));
    }
    Ok(all)
}
