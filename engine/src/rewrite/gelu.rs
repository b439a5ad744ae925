//! Gelu as exporters spell it out: with the error function, or with the hyperbolic tangent.
//!
//! ```text
//! x · 0.5 · (1 + erf(x / √2))                      in any order of the products
//! x · 0.5 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))
//! ```
//! Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.

use super::pattern::{Links, Pattern, is, renamed};
use crate::graph::attributes::Attribute;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::operators::ONNX_DOMAIN;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let pattern = links.of(graph);
        let node = &graph.nodes[i];
        if !is(node, "Mul") {
            continue;
        }
        let Some((x, approximate)) = spelled_out(&pattern, node) else {
            continue;
        };
        let attributes =
            Attributes::new(20, 1).with("approximate", Attribute::String(approximate.into()));
        let name = renamed(node, ONNX_DOMAIN, "Gelu", 20);
        let outputs = node.outputs.clone();
        if let Some(node) = graph.make_node(name, attributes, &[Some(x)], &outputs) {
            graph.nodes[i] = node;
            changes += 1;
        }
    }
    changes
}

/// `x` and the kind of approximation, where the product at `node` is a Gelu.
fn spelled_out(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, &'static str)> {
    // The factors of up to three products, without the 0.5 that must be among them.
    let mut factors = Vec::new();
    collect_factors(pattern, node, 0, &mut factors);
    let half = factors
        .iter()
        .position(|&f| pattern.number(Some(f)) == Some(0.5))?;
    let half = factors.remove(half);
    let &[a, b] = &factors[..] else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
        let is_number = |id, expected| pattern.is_number(id, expected, Some(x));
        if !is_number(Some(half), 0.5) {
            return None;
        }
        let sum = pattern.made_by(Some(gate), "Add")?;
        let inner = pattern.other(sum, |id| is_number(id, 1.0));
        if let Some(erf) = pattern.made_by(inner, "Erf") {
            return is_over_root_two(pattern, erf.input(0), x).then_some((x, "none"));
        }
        let tanh = pattern.made_by(inner, "Tanh")?;
        is_tanh_argument(pattern, tanh.input(0), x).then_some((x, "tanh"))
    })
}

fn collect_factors(pattern: &Pattern<'_>, node: &Node, depth: usize, factors: &mut Vec<ValueId>) {
    for id in node.inputs.iter().flatten() {
        match pattern.only_for_this(Some(*id), "Mul") {
            Some(product) if depth < 2 => collect_factors(pattern, product, depth + 1, factors),
            _ => factors.push(*id),
        }
    }
}

fn is_over_root_two(pattern: &Pattern<'_>, id: Option<ValueId>, x: ValueId) -> bool {
    let root = std::f64::consts::SQRT_2;
    let is_number = |id, expected| pattern.is_number(id, expected, Some(x));
    if let Some(quotient) = pattern.made_by(id, "Div") {
        return quotient.input(0) == Some(x) && is_number(quotient.input(1), root);
    }
    pattern
        .made_by(id, "Mul")
        .is_some_and(|product| pattern.other(product, |id| is_number(id, 1.0 / root)) == Some(x))
}

fn is_tanh_argument(pattern: &Pattern<'_>, id: Option<ValueId>, x: ValueId) -> bool {
    let is_number = |id, expected| pattern.is_number(id, expected, Some(x));
    let argument = || {
        let product = pattern.made_by(id, "Mul")?;
        let scale = (2.0 / std::f64::consts::PI).sqrt();
        let sum = pattern.other(product, |id| is_number(id, scale))?;
        let sum = pattern.made_by(Some(sum), "Add")?;
        let cubic = pattern.other(sum, |id| id == Some(x))?;
        let cubic = pattern.made_by(Some(cubic), "Mul")?;
        let cube = pattern.other(cubic, |id| is_number(id, 0.044715))?;
        Some(is_cube(pattern, cube, x))
    };
    argument().unwrap_or(false)
}

fn is_cube(pattern: &Pattern<'_>, cube: ValueId, x: ValueId) -> bool {
    if let Some(power) = pattern.made_by(Some(cube), "Pow") {
        return power.input(0) == Some(x) && pattern.is_number(power.input(1), 3.0, Some(x));
    }
    let product = || {
        let outer = pattern.made_by(Some(cube), "Mul")?;
        let square = pattern.other(outer, |id| id == Some(x))?;
        let square = pattern.made_by(Some(square), "Mul")?;
        Some(square.input(0) == Some(x) && square.input(1) == Some(x))
    };
    product().unwrap_or(false)
}
