//! A model as a text, and how it is compared with and without rewrites.
//!
//! Nodes are `y = Operator x 2.0 attribute=value`, parted by `;`. A number among the inputs is a constant,
//! `[2.0]` one with an axis; `_` is an absent input.

use crate::graph::attributes::Attribute;
use crate::onnx::proto;
use crate::onnx::writer::ModelWriter;
use crate::session::{Session, SessionOptions};
use crate::tensor::{DataType, Tensor, Value};

/// What a rewrite is to make of a model.
#[derive(Clone, Copy)]
pub(super) enum Expect {
    /// This operator, so that the case is about it.
    Made(&'static str),
    /// Not this one.
    Never(&'static str),
}

#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) opset: i64,
    pub(super) data_type: DataType,
    /// `x:n,4 r:1,4`.
    pub(super) inputs: &'static str,
    /// `w:4,4 b:4`.
    pub(super) constants: &'static str,
    pub(super) nodes: &'static str,
    /// What the file says of inner values, `r:n,4`, and what is wrong.
    pub(super) stale: &'static str,
    /// Shapes of the inputs, runs parted by `|`.
    pub(super) runs: &'static str,
    pub(super) expect: Expect,
}

pub(super) const BASE: Case = Case {
    name: "",
    opset: 17,
    data_type: DataType::Float32,
    inputs: "",
    constants: "",
    nodes: "",
    stale: "",
    runs: "",
    expect: Expect::Never("?"),
};

/// Names and sizes of `x:n,4 r:1,4`.
pub(super) fn named(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split_whitespace()
        .filter_map(|part| part.split_once(':'))
}

pub(super) fn shape(text: &str) -> Vec<usize> {
    let sizes = text.split(',').filter(|size| *size != "_");
    sizes.map(|size| size.parse().expect("a size")).collect()
}

/// Numbers of a wave between -2 and 2, as the type has them.
pub(super) fn wave(data_type: DataType, shape: &[usize], step: f64) -> Tensor {
    let count = shape.iter().product();
    let numbers: Vec<f64> = (0..count).map(|i| 2.0 * (i as f64 * step).sin()).collect();
    of_numbers(data_type, shape, &numbers)
}

pub(super) fn of_numbers(data_type: DataType, shape: &[usize], numbers: &[f64]) -> Tensor {
    match data_type {
        DataType::Float32 => {
            let numbers: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
            Tensor::from_slice(shape, &numbers)
        }
        DataType::Float16 => {
            let numbers: Vec<_> = numbers.iter().map(|&x| half::f16::from_f64(x)).collect();
            Tensor::from_slice(shape, &numbers)
        }
        DataType::Int64 => {
            // Beyond what floats can count.
            let numbers = numbers.iter();
            let numbers = numbers.map(|&x| (x * (1u64 << 58) as f64) as i64 + 1);
            Tensor::from_slice(shape, &numbers.collect::<Vec<_>>())
        }
        DataType::Int32 => {
            let numbers = numbers.iter().map(|&x| (x * (1 << 28) as f64) as i32);
            Tensor::from_slice(shape, &numbers.collect::<Vec<_>>())
        }
        _ => Tensor::from_slice(shape, numbers),
    }
    .expect("as many elements")
}

pub(super) fn numbers_of(tensor: &Tensor) -> Vec<f64> {
    match tensor.data_type() {
        DataType::Float32 => {
            let numbers = tensor.as_slice::<f32>().expect("f32").iter();
            numbers.map(|&x| x.into()).collect()
        }
        DataType::Float16 => {
            let numbers = tensor.as_slice::<half::f16>().expect("f16").iter();
            numbers.map(|&x| x.into()).collect()
        }
        DataType::Int64 => {
            // Differences of odd numbers must not vanish.
            let numbers = tensor.as_slice::<i64>().expect("i64").iter();
            numbers
                .flat_map(|&x| [(x >> 32) as f64, f64::from(x as u32)])
                .collect()
        }
        DataType::Int32 => {
            let numbers = tensor.as_slice::<i32>().expect("i32").iter();
            numbers.map(|&x| x.into()).collect()
        }
        DataType::Float64 => tensor.as_slice::<f64>().expect("f64").to_vec(),
        other => panic!("a test of {other}"),
    }
}

pub(super) fn attribute(name: &str, text: &str) -> Attribute {
    if let (Ok(int), false) = (text.parse(), name == "axes") {
        return Attribute::Int(int);
    }
    if let (Ok(float), true) = (text.parse(), text.contains('.')) {
        return Attribute::Float(float);
    }
    match text.split(',').map(str::parse).collect() {
        Ok(ints) => Attribute::Ints(ints),
        Err(_) => Attribute::String(text.into()),
    }
}

impl Case {
    pub(super) fn model(&self) -> proto::Model {
        let mut model = ModelWriter::new(self.opset);
        for (name, dims) in named(self.inputs) {
            let dims: Vec<&str> = dims.split(',').filter(|dim| *dim != "_").collect();
            model = model.input(name, self.data_type, &dims);
        }
        for (i, (name, sizes)) in named(self.constants).enumerate() {
            let tensor = wave(self.data_type, &shape(sizes), 0.37 + i as f64 * 0.11);
            model = model.constant(name, &tensor);
        }
        let mut last = "";
        for (i, node) in self.nodes.split(';').enumerate() {
            let (outputs, call) = node.split_once('=').expect("an output");
            let mut words = call.split_whitespace();
            let op_type = words.next().expect("an operator");
            let (mut inputs, mut attributes) = (Vec::new(), Vec::new());
            for (j, word) in words.enumerate() {
                if let Some((name, value)) = word.split_once('=') {
                    attributes.push((name, attribute(name, value)));
                    continue;
                }
                let number = word.trim_matches(['[', ']']);
                let Ok(number) = number.parse::<f64>() else {
                    inputs.push(if word == "_" {
                        String::new()
                    } else {
                        word.into()
                    });
                    continue;
                };
                let rank = word.matches('[').count();
                let name = format!("c{i}_{j}");
                let scalar = |data_type| of_numbers(data_type, &vec![1; rank], &[number]);
                let tensor = match number.fract() == 0.0 && !word.contains('.') {
                    // Axes and the like.
                    true => Tensor::from_slice(&vec![1; rank], &[number as i64]).expect("one"),
                    false => scalar(self.data_type),
                };
                model = model.constant(&name, &tensor);
                inputs.push(name);
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let outputs: Vec<&str> = outputs.split_whitespace().collect();
            last = outputs[0];
            model = model.node(op_type, &inputs, &outputs, attributes);
        }
        let mut model = model.output(last).into_model();
        // As an input's type is written.
        let mut stale = ModelWriter::new(self.opset);
        for (name, dims) in named(self.stale) {
            let dims: Vec<&str> = dims.split(',').collect();
            stale = stale.input(name, self.data_type, &dims);
        }
        let stale = stale.into_model().graph.unwrap_or_default().input;
        model.graph.get_or_insert_default().value_info = stale;
        model
    }

    fn check(&self) {
        let model = self.model();
        let load = |rewrite| {
            let options = SessionOptions {
                rewrite,
                ..SessionOptions::default()
            };
            let session = Session::from_model(&model, &options);
            session.unwrap_or_else(|error| panic!("{}: {error}", self.name))
        };
        let (plain, rewritten) = (load(false), load(true));
        let operators = || {
            let steps = rewritten.plan().steps.iter();
            steps
                .map(|step| step.name.op_type.as_str())
                .collect::<Vec<_>>()
        };
        match self.expect {
            Expect::Made(made) => assert!(
                operators().contains(&made),
                "{}: {:?}",
                self.name,
                operators()
            ),
            Expect::Never(made) => assert!(
                !operators().contains(&made),
                "{}: {:?}",
                self.name,
                operators()
            ),
        }
        for run in self.runs.split('|') {
            for special in 0..=2 + ODD.len() {
                let inputs: Vec<(&str, Value)> = plain
                    .inputs()
                    .iter()
                    .zip(run.split_whitespace())
                    .enumerate()
                    .map(|(i, (info, sizes))| {
                        let tensor = self.input(&shape(sizes), i, special);
                        (&*info.name, Value::Tensor(tensor))
                    })
                    .collect();
                let what = format!("{} on {run}, {special}", self.name);
                let answer = |session: &Session| {
                    let outputs = session.run(&inputs);
                    let outputs = outputs.unwrap_or_else(|error| panic!("{what}: {error}"));
                    outputs[0].1.as_tensor().expect("a tensor").clone()
                };
                same(&what, &answer(&plain), &answer(&rewritten));
            }
        }
    }

    /// The so-manyth input: plain numbers, zeros, or numbers with some among them that are none, of
    /// which each has its turn to be the first.
    fn input(&self, shape: &[usize], i: usize, special: usize) -> Tensor {
        let plain = wave(self.data_type, shape, 0.71 + i as f64 * 0.13);
        let count: usize = shape.iter().product();
        if special == 0 {
            return plain;
        }
        let mut numbers = vec![0.0; count];
        if let Some(first) = special.checked_sub(2) {
            for (j, number) in numbers.iter_mut().enumerate() {
                *number = (j as f64 * 0.71).sin();
                // Few enough for some rows to have none.
                let nth = j / 5 + i;
                if j % 5 == 1 && nth.is_multiple_of(3) {
                    let odd = ODD[(nth / 3 + first) % ODD.len()];
                    // Squares of large numbers are infinite in 16 bits, and not in what they are
                    // computed in where nodes are fused.
                    let is_half = self.data_type == DataType::Float16;
                    *number = if is_half { odd.clamp(-30.0, 30.0) } else { odd };
                }
            }
        }
        match self.data_type {
            DataType::Int64 | DataType::Int32 => plain,
            data_type => of_numbers(data_type, shape, &numbers),
        }
    }
}

/// What is rarely met.
pub(super) const ODD: [f64; 6] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 3e4, -3e4];

pub(super) fn same(what: &str, expected: &Tensor, found: &Tensor) {
    assert_eq!(expected.data_type(), found.data_type(), "{what}");
    assert_eq!(expected.shape(), found.shape(), "{what}");
    let tolerance = match expected.data_type() {
        DataType::Float16 => 1e-2,
        DataType::Float32 => 2e-5,
        DataType::Float64 => 1e-12,
        _ => 0.0,
    };
    for (a, b) in numbers_of(expected).into_iter().zip(numbers_of(found)) {
        let near = a.is_finite() && (a - b).abs() <= tolerance * (1.0 + a.abs());
        assert!(
            near || a == b || a.is_nan() && b.is_nan(),
            "{what}: {a} became {b}"
        );
    }
}

pub(super) fn check_all(cases: &[Case]) {
    cases.iter().for_each(Case::check);
}
