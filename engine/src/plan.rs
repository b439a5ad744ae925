//! From a graph to something that runs.
//!
//! A [`Plan`] is made once, at load: operators take their constant inputs into themselves
//! ([`Operator::prepare`]), constants that nobody reads any more are dropped, subgraphs become
//! plans of their own. When the shapes of a run's inputs are known, a [`Layout`]
//! is made for them and kept: every shape, what follows from shapes alone, and an offset in one
//! arena for every tensor whose size is known. A run with a known layout allocates nothing but what
//! depends on data.

mod arena;
mod execute;
mod heap_outputs;
mod layout;
mod lifetimes;
mod placement;

pub use execute::{Pause, Profile, RunOptions, RunState, StepProfile};
pub use layout::{Layout, StepKind};
pub use placement::{DeviceMemory, Placed, Placement};

use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::error::{Error, NodeName};
use crate::graph::{Attributes, Graph, Node, ValueId, ValueInfo, ValueType};
use crate::kernels::env::Env;
use crate::operator::Operator;
use crate::tensor::Tensor;

/// A node ready to run.
#[derive(Debug)]
pub struct Step {
    /// Name, operator, domain and opset.
    pub name: Arc<NodeName>,
    /// The attributes as the model gives them.
    pub attributes: Attributes,
    /// The operator, prepared.
    pub operator: Arc<dyn Operator>,
    /// Inputs; the captures of the subgraphs are the last ones.
    pub inputs: SmallVec<[Option<ValueId>; 4]>,
    /// Outputs.
    pub outputs: SmallVec<[Option<ValueId>; 2]>,
    /// How many inputs are captures.
    pub captures: usize,
    /// The subgraphs, planned.
    pub subplans: Vec<Plan>,
    /// Types of their outputs as proved at load.
    subgraph_outputs: Vec<Vec<ValueType>>,
}

/// A graph in the order and form in which it runs.
#[derive(Debug)]
pub struct Plan {
    /// The nodes.
    pub steps: Vec<Step>,
    /// Names and types of the values.
    pub values: Vec<ValueInfo>,
    /// Values given from outside.
    pub inputs: Vec<ValueId>,
    /// Values that are the result.
    pub outputs: Vec<ValueId>,
    /// Values known at load that some step or output reads.
    pub constants: BTreeMap<ValueId, Tensor>,
    /// Bytes of the constants that nodes read, as the graph gives them.
    weight_bytes: usize,
    /// Layouts by the shapes of the inputs, the one used last at the end.
    layouts: Mutex<Vec<Arc<Layout>>>,
}

impl Plan {
    /// Plans a graph. Operators take constants into themselves in a form that suits the CPU; for
    /// another device, which wants them as they are, `prepare` is false.
    ///
    /// # Errors
    /// When a constant does not fit the operator that reads it.
    pub fn new(graph: Graph, env: &Env, prepare: bool) -> Result<Self, Error> {
        let Graph {
            values,
            nodes,
            inputs,
            outputs,
            mut constants,
            ..
        } = graph;
        let weight_bytes = weight_bytes(&nodes, &constants);
        // How many will still read a constant, in the form that it has.
        let mut readers: BTreeMap<ValueId, usize> = BTreeMap::new();
        let reads = nodes.iter().flat_map(|node| node.inputs.iter().flatten());
        for id in reads.chain(&outputs) {
            *readers.entry(*id).or_default() += 1;
        }
        constants.retain(|id, _| readers.contains_key(id));
        let mut steps: Vec<Step> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let given = node.inputs.clone();
            let step = step(node, &constants, env, prepare)?;
            for (id, kept) in given.iter().zip(&step.inputs) {
                // What an operator took into itself is let go at once: weights are here once, not twice.
                if let (Some(id), None) = (id, kept)
                    && let Some(left) = readers.get_mut(id)
                {
                    *left -= 1;
                    if *left == 0 {
                        constants.remove(id);
                    }
                }
            }
            steps.push(step);
        }
        let constants = constants
            .into_iter()
            .map(|(id, t)| (id, t.aligned()))
            .collect();
        Ok(Self {
            steps,
            values,
            inputs,
            outputs,
            constants,
            weight_bytes,
            layouts: Mutex::default(),
        })
    }

    /// Bytes of the weights that the nodes read, before operators took them into themselves in a
    /// form of their own; those of subgraphs included.
    pub fn weight_bytes(&self) -> usize {
        let subplans = self.steps.iter().flat_map(|s| &s.subplans);
        self.weight_bytes + subplans.map(Self::weight_bytes).sum::<usize>()
    }
}

fn weight_bytes(nodes: &[Node], constants: &BTreeMap<ValueId, Tensor>) -> usize {
    let read: BTreeSet<ValueId> = nodes
        .iter()
        .flat_map(|node| node.inputs.iter().flatten())
        .copied()
        .collect();
    let weights = read.iter().filter_map(|id| constants.get(id));
    weights.map(|t| t.bytes().len()).sum()
}

fn step(
    node: Node,
    constants: &BTreeMap<ValueId, Tensor>,
    env: &Env,
    prepare: bool,
) -> Result<Step, Error> {
    let known: SmallVec<[Option<&Tensor>; 8]> = node
        .inputs
        .iter()
        .map(|id| constants.get(&(*id)?))
        .collect();
    let fail = |source| Error::Node {
        node: Box::new((*node.name).clone()),
        source,
    };
    let mut inputs = node.inputs.clone();
    let prepared = match prepare {
        true => node.operator.prepare(&known, env).map_err(fail)?,
        false => None,
    };
    let operator = match prepared {
        None => node.operator,
        Some(prepared) => {
            for i in prepared.consumed {
                inputs[i] = None;
            }
            prepared.operator.into()
        }
    };
    // Sizes are made of them: what the model declares may be wrong.
    let subgraph_outputs = node.subgraphs.iter().map(Graph::proved_outputs).collect();
    let subplans = node
        .subgraphs
        .into_iter()
        .map(|g| Plan::new(g, env, prepare))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Step {
        name: node.name,
        attributes: node.attributes,
        operator,
        inputs,
        outputs: node.outputs,
        captures: node.captures,
        subplans,
        subgraph_outputs,
    })
}
