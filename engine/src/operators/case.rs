//! Running one operator of the table in tests.

use super::find;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::graph::attributes::Attribute;
use crate::kernels::env::Env;
use crate::operator::run_alone;
use crate::tensor::{Element, Tensor, Value};

/// An operator with attributes, to be run on inputs.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(super) domain: &'static str,
    pub(super) op_type: &'static str,
    pub(super) attributes: Attributes,
}

impl Case {
    /// An operator of the default domain with one output.
    pub(crate) fn of(op_type: &'static str, opset: i64) -> Self {
        Self::in_domain(super::ONNX_DOMAIN, op_type, opset)
    }

    /// An operator of another domain.
    pub(crate) fn in_domain(domain: &'static str, op_type: &'static str, opset: i64) -> Self {
        let attributes = Attributes::new(opset, 1);
        Self {
            domain,
            op_type,
            attributes,
        }
    }

    /// With an attribute.
    pub(crate) fn with(mut self, name: &str, value: Attribute) -> Self {
        self.attributes.insert(name, value);
        self
    }

    /// With an integer attribute.
    pub(crate) fn int(self, name: &str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// With integers as an attribute.
    pub(crate) fn ints(self, name: &str, value: &[i64]) -> Self {
        self.with(name, Attribute::Ints(value.to_vec()))
    }

    /// With text as an attribute.
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.with(name, Attribute::String(value.into()))
    }

    /// With so many outputs.
    pub(crate) fn outputs(mut self, count: usize) -> Self {
        self.attributes.output_count = count;
        self
    }

    /// All outputs; absent inputs are `None`.
    pub(crate) fn run(&self, inputs: &[Option<Value>]) -> Result<Vec<Value>, OpError> {
        super::extremes::check(self, inputs);
        self.run_as_it_is(inputs)
    }

    /// The same without a look at the integers in it, for cases by the hundred.
    pub(super) fn run_as_it_is(&self, inputs: &[Option<Value>]) -> Result<Vec<Value>, OpError> {
        let entry = find(self.domain, self.op_type, self.attributes.opset)
            .unwrap_or_else(|| panic!("no row for {} {}", self.op_type, self.attributes.opset));
        let listed: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        let outputs = vec![true; self.attributes.output_count];
        let signature = entry.signature;
        signature.check(self.domain, &listed, &outputs, &self.attributes)?;
        let operator = (entry.parse)(&self.attributes)?;
        let count = self.attributes.output_count;
        let outputs = run_alone(&*operator, &Env::default(), inputs, count)?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// All outputs of tensors.
    pub(crate) fn tensors(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let inputs: Vec<_> = inputs.iter().cloned().map(|t| Some(t.into())).collect();
        let outputs = self.run(&inputs)?;
        outputs.iter().map(|v| v.as_tensor().cloned()).collect()
    }

    /// The first output.
    pub(crate) fn one(&self, inputs: &[Tensor]) -> Result<Tensor, OpError> {
        Ok(self.tensors(inputs)?.swap_remove(0))
    }
}

/// A tensor.
pub(crate) fn tensor<T: Element>(shape: &[usize], elements: &[T]) -> Tensor {
    Tensor::from_slice(shape, elements).expect("as many elements as the shape has")
}

/// A tensor of strings.
pub(crate) fn strings(shape: &[usize], elements: &[&str]) -> Tensor {
    let strings = elements.iter().map(|s| s.to_string()).collect();
    Tensor::from_strings(shape, strings).expect("as many elements as the shape has")
}

/// A vector of int64.
pub(crate) fn ints(elements: &[i64]) -> Tensor {
    tensor(&[elements.len()], elements)
}
