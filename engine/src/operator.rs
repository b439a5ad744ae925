//! The one trait that operators implement, and what it gives and takes.
//!
//! An operator is parsed once from a node's attributes, says what its outputs will be
//! ([`Operator::infer`]: with symbols at load, with numbers when a run's input shapes are known),
//! may turn constant inputs into a faster form of itself ([`Operator::prepare`]: packed weights),
//! and runs ([`Operator::run`]) on buffers that were sized by `infer`.

mod infer;
mod run;

pub use infer::{InferContext, InputInfo, OutputInfo, OutputInfos};
pub(crate) use run::NoSubgraphs;
pub use run::{InputValue, OutputSlot, OutputSlots, RunContext, Subgraphs, run_alone};

use smallvec::SmallVec;
use std::fmt::Debug;

use crate::error::OpError;
use crate::kernels::env::Env;
use crate::tensor::Tensor;

/// An operator with its attributes.
pub trait Operator: Debug + Send + Sync {
    /// Types and shapes of the outputs, from what is known of the inputs. The only shape rule:
    /// where every dimension is known it gives numbers, or [`Dim::Unknown`](crate::graph::Dim)
    /// where the size depends on data. At run time it is asked again with all values known, and an
    /// output whose size is unknown even then is made by `run` ([`RunContext::set_output`]).
    ///
    /// # Errors
    /// When the inputs do not fit the operator.
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError>;

    /// Computes the outputs.
    ///
    /// # Errors
    /// When the inputs' values do not fit the operator.
    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError>;

    /// A form of this operator with some constant inputs taken into it, such as packed weights.
    /// `constants[i]` is the `i`-th input where it is known at load.
    ///
    /// # Errors
    /// When the constants do not fit the operator.
    fn prepare(
        &self,
        constants: &[Option<&Tensor>],
        env: &Env,
    ) -> Result<Option<Prepared>, OpError> {
        let _ = (constants, env);
        Ok(None)
    }

    /// Pairs (input, output) such that the output may be computed in the input's memory when both
    /// have the same type and size; `run` then finds the input's content in the output
    /// ([`RunContext::is_in_place`]).
    fn in_place(&self) -> &[(usize, usize)] {
        &[]
    }

    /// Whether output 0 is input 0's bytes under another shape (Reshape and its kin), so that
    /// nothing need be copied. `run` must work all the same.
    fn is_alias(&self) -> bool {
        false
    }

    /// Whether equal inputs give equal outputs; random operators do not, and are never folded.
    fn is_deterministic(&self) -> bool {
        true
    }
}

/// What [`Operator::prepare`] gives.
#[derive(Debug)]
pub struct Prepared {
    /// The operator to run instead.
    pub operator: Box<dyn Operator>,
    /// Inputs that it needs no more: `infer` and `run` will see them as absent.
    pub consumed: SmallVec<[usize; 4]>,
}
