//! `If`: one of two subgraphs.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__If.html>, opsets 1 to 25. The branches may give
//! different shapes, so sizes are known only once one has run.

use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims, ValueType};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType};

/// The operator with the indices of its subgraphs.
#[derive(Debug)]
pub(super) struct If {
    then_branch: usize,
    else_branch: usize,
}

impl If {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            then_branch: *node.graph("then_branch")?,
            else_branch: *node.graph("else_branch")?,
        })
    }
}

/// What is true of the value whichever branch runs: its kind and number of axes. The sizes that a
/// model declares within branches are not relied on.
fn common(a: &ValueType, b: &ValueType) -> OutputInfo {
    let rank = |t: &ValueType| t.dims.as_ref().map(Dims::len);
    let dims = match (rank(a), rank(b)) {
        (Some(a), Some(b)) if a == b => Some(Dims::from_elem(Dim::Unknown, a)),
        _ => None,
    };
    let value_type = match a.kind == b.kind {
        true => ValueType {
            kind: a.kind.clone(),
            // A scalar would count as sized.
            dims: dims.filter(|d| !d.is_empty()),
        },
        false => ValueType::UNKNOWN,
    };
    OutputInfo {
        value_type,
        ints: None,
    }
}

impl Operator for If {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "cond", &[DataType::Bool])?;
        let then = inputs.subgraph_outputs(self.then_branch);
        let otherwise = inputs.subgraph_outputs(self.else_branch);
        if then.len() != otherwise.len() {
            return Err(OpError::shape(
                "else_branch",
                format!("{} outputs, as then_branch has", then.len()),
                otherwise.len().to_string(),
            ));
        }
        Ok(then
            .iter()
            .zip(otherwise)
            .map(|(a, b)| common(a, b))
            .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let holds = ctx.input(0, "cond")?.single::<Bool>()?.get();
        let branch = if holds {
            self.then_branch
        } else {
            self.else_branch
        };
        let values = ctx.run_subgraph(branch, &[])?;
        for (i, value) in values.into_iter().enumerate() {
            ctx.set_output(i, value)?;
        }
        Ok(())
    }
}
