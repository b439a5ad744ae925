//! Tests of all rewrites together.

mod agreement;

use std::time::{Duration, Instant};

use super::*;
use crate::onnx::writer::ModelWriter;
use crate::session::Budget;
use crate::tensor::{DataType, Tensor};

/// A graph of so many links, in which most rewrites find something.
fn chain(links: usize) -> Graph {
    let mut model = ModelWriter::new(17).input("x0", DataType::Float32, &["n", "1"]);
    model = model.constant("w", &Tensor::from_slice(&[1, 1], &[0.5f32]).expect("fits"));
    model = model.constant("b", &Tensor::from_slice(&[1], &[0.5f32]).expect("fits"));
    for i in 0..links {
        let [x, a, b, c, d] = ["x", "a", "b", "c", "d"].map(|name| format!("{name}{i}"));
        let next = format!("x{}", i + 1);
        model = model
            .node("Identity", &[&x], &[&a], vec![])
            .node("MatMul", &[&a, "w"], &[&b], vec![])
            .node("MatMul", &[&x, "w"], &[&c], vec![])
            .node("Add", &[&b, "b"], &[&d], vec![])
            .node("Add", &[&c, &d], &[&next], vec![]);
    }
    let model = model.output(&format!("x{links}")).into_model();
    let options = crate::graph::BuildOptions {
        files: &crate::onnx::external_data::NoExternalData,
        budget: &Budget::default(),
    };
    crate::graph::build(&model, &options).expect("a graph")
}

#[test]
fn rewriting_takes_time_in_proportion_to_the_nodes() {
    let wanted = Wanted {
        for_cpu: true,
        quantize: false,
    };
    let least = |links: usize| -> Duration {
        let runs = (0..3).map(|_| {
            let mut graph = chain(links);
            let start = Instant::now();
            let report = rewrite(&mut graph, &Env::default(), wanted);
            assert!(report.nodes_after <= 3 * links, "{report:?}");
            start.elapsed()
        });
        runs.min().unwrap_or_default()
    };
    let (few, many) = (least(250), least(2000));
    // Eight times the nodes: 64 times the time were it quadratic.
    assert!(many < few * 24, "{few:?} became {many:?}");
}
