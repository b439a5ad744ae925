//! Initializers that a caller gives another value.
//!
//! From IR version 4 on an initializer that is also among the graph's inputs is that input's default.
//! Nearly every run leaves it as it is, and some exporters list all weights so: hence a session is planned
//! as if they were constants, folded and packed. For a run that does give one, the model is planned again
//! with that initializer left out, so that it is an input like any other. What it needs for that, the model
//! itself, is kept for such models alone. Before IR version 4 every initializer had to be listed, and
//! onnxruntime takes them for constants too.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{DeviceChoice, Session, SessionOptions};
use crate::error::Error;
use crate::graph::{self, ValueInfo};
use crate::onnx::external_data::{self, NoExternalData};
use crate::onnx::proto;

/// Sessions with other inputs that are kept. A caller gives the same inputs in each run as a rule.
const KEPT: usize = 2;

/// Inputs with defaults, and the sessions for runs that give some of them.
pub(super) struct Overrides {
    /// The inputs that have defaults.
    inputs: Vec<ValueInfo>,
    names: HashSet<Arc<str>>,
    /// By its address, which only a model with such inputs has in its memory: else every run would lead to
    /// all operators and to models, and a bundle would have to keep them. For the same reason this struct has
    /// memory of its own: where it would be a part of others, the compiler may write the address there
    /// though there is no such input.
    planner: Box<dyn Plans>,
    /// By the names of what was given, the one used last at the end.
    sessions: Mutex<Vec<(BTreeSet<Arc<str>>, Arc<Session>)>>,
}

/// Plans a model with some of its initializers as inputs.
trait Plans: Send + Sync {
    fn plan(&self, of: &Session, given: &BTreeSet<Arc<str>>) -> Result<Session, Error>;
}

/// What it takes to plan a model again.
struct Planner {
    /// With the data of other files in it.
    model: proto::Model,
    device: DeviceChoice,
    rewrite: bool,
    quantize: bool,
}

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrides")
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl Overrides {
    /// `None` where no input of the model has a default.
    pub(super) fn new(
        model: &proto::Model,
        options: &SessionOptions<'_>,
    ) -> Result<Option<Box<Self>>, Error> {
        let inputs = graph::inputs_with_defaults(model);
        if inputs.is_empty() {
            return Ok(None);
        }
        let mut model = model.clone();
        external_data::attach(&mut model, options.files)?;
        Ok(Some(Box::new(Self {
            names: inputs.iter().map(|info| info.name.clone()).collect(),
            inputs,
            planner: Box::new(Planner {
                model,
                device: options.device.clone(),
                rewrite: options.rewrite,
                quantize: options.quantize,
            }),
            sessions: Mutex::default(),
        })))
    }

    /// The inputs that have defaults.
    pub(super) fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The session for a run with these inputs; `None` where they leave all defaults as they are.
    pub(super) fn session<T>(
        &self,
        of: &Session,
        inputs: &[(&str, T)],
    ) -> Result<Option<Arc<Session>>, Error> {
        let given = inputs.iter().filter_map(|(name, _)| self.names.get(*name));
        let given: BTreeSet<Arc<str>> = given.cloned().collect();
        if given.is_empty() {
            return Ok(None);
        }
        // A second request for the same waits here instead of planning it too.
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = sessions.iter().position(|(names, _)| *names == given) {
            let found = sessions.remove(at);
            let session = found.1.clone();
            sessions.push(found);
            return Ok(Some(session));
        }
        let session = Arc::new(self.planner.plan(of, &given)?);
        if sessions.len() == KEPT {
            sessions.remove(0);
        }
        sessions.push((given, session.clone()));
        Ok(Some(session))
    }

    /// Wipes what runs left in the sessions.
    pub(super) fn wipe(&self) -> usize {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(_, session)| session.wipe()).sum()
    }
}

impl Plans for Planner {
    fn plan(&self, of: &Session, given: &BTreeSet<Arc<str>>) -> Result<Session, Error> {
        let mut model = self.model.clone();
        if let Some(graph) = &mut model.graph {
            let is_given = |name: Option<&str>| name.is_some_and(|name| given.contains(name));
            graph
                .initializer
                .retain(|tensor| !is_given(tensor.name.as_deref()));
            graph.sparse_initializer.retain(|sparse| {
                let values = sparse.values.as_ref();
                !is_given(values.and_then(|values| values.name.as_deref()))
            });
        }
        let options = SessionOptions {
            level: of.env.level,
            numerics: of.env.numerics,
            threads: of.env.threads.clone(),
            budget: of.budget.clone(),
            device: self.device.clone(),
            rewrite: self.rewrite,
            quantize: self.quantize,
            files: &NoExternalData,
        };
        Session::planned(&model, &options, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::onnx;
    use crate::onnx::writer::ModelWriter;
    use crate::tensor::{DataType, Tensor, Value};

    fn tensor<T: crate::tensor::Element>(shape: &[usize], elements: &[T]) -> Tensor {
        Tensor::from_slice(shape, elements).expect("as many elements as the shape has")
    }

    /// Products, an addition in a branch, a shape: constants that are packed, captured and folded, all of
    /// which are inputs too. `y = reshape(x · w + (c ? b : -b), shape)`.
    fn model(ir_version: i64) -> proto::Model {
        let branch = |op_type: &str| {
            let model = ModelWriter::new(17)
                .node(op_type, &["b"], &["q"], vec![])
                .output("q");
            let model = onnx::read_model(model.to_bytes().into()).expect("a model");
            model.graph.expect("a graph")
        };
        let written = ModelWriter::new(17)
            .input("x", DataType::Float32, &["2", "2"])
            .input("w", DataType::Float32, &["2", "2"])
            .input("b", DataType::Float32, &["n"])
            .input("shape", DataType::Int64, &["k"])
            .input("c", DataType::Bool, &[])
            .constant("w", &tensor(&[2, 2], &[1f32, 0., 0., 1.]))
            .constant("b", &tensor(&[1], &[10f32]))
            .constant("shape", &tensor(&[1], &[4i64]))
            .node("MatMul", &["x", "w"], &["p"], vec![])
            .node("If", &["c"], &["r"], vec![])
            .node("Add", &["p", "r"], &["s"], vec![])
            .node(
                "Reshape",
                &["s", "shape"],
                &["y"],
                vec![("allowzero", Attribute::Int(0))],
            )
            .output("y");
        let mut model = onnx::read_model(written.to_bytes().into()).expect("a model");
        model.ir_version = Some(ir_version);
        let graph = model.graph.as_mut().expect("a graph");
        for (name, op_type) in [("then_branch", "Identity"), ("else_branch", "Neg")] {
            graph.node[1].attribute.push(proto::Attribute {
                name: Some(name.into()),
                r#type: Some(proto::AttributeType::Graph as i32),
                g: Some(branch(op_type)),
                ..Default::default()
            });
        }
        model
    }

    fn run(
        session: &Session,
        c: bool,
        given: &[(&str, Value)],
    ) -> Result<(Vec<usize>, Vec<f32>), Error> {
        let x = tensor(&[2, 2], &[1f32, 2., 3., 4.]);
        let c = tensor(&[], &[crate::tensor::Bool::from(c)]);
        let inputs = [&[("x", x.into()), ("c", c.into())], given].concat();
        let outputs = session.run(&inputs)?;
        let y = outputs[0].1.as_tensor().expect("a tensor");
        Ok((
            y.shape().to_vec(),
            y.as_slice::<f32>().expect("f32").to_vec(),
        ))
    }

    #[test]
    fn what_is_given_instead_of_an_initializer_is_computed_with() {
        for rewrite in [true, false] {
            let options = SessionOptions {
                rewrite,
                ..SessionOptions::default()
            };
            let session = Session::from_model(&model(8), &options).expect("loads");
            let names =
                |infos: &[ValueInfo]| infos.iter().map(|i| i.name.to_string()).collect::<Vec<_>>();
            assert_eq!(names(session.inputs()), ["x", "c"]);
            assert_eq!(names(session.optional_inputs()), ["w", "b", "shape"]);
            let w = || ("w", tensor(&[2, 2], &[0f32, 1., 1., 0.]).into());
            let b = || ("b", tensor(&[2], &[100f32, 200.]).into());
            let shape = || ("shape", tensor(&[2], &[1i64, 4]).into());
            // Each more than once and in turn: what is kept must not answer for the rest.
            for _ in 0..2 {
                for (c, given, dims, expected) in [
                    (true, vec![], vec![4], [11f32, 12., 13., 14.]),
                    (false, vec![], vec![4], [-9., -8., -7., -6.]),
                    (true, vec![w()], vec![4], [12., 11., 14., 13.]),
                    (true, vec![b()], vec![4], [101., 202., 103., 204.]),
                    (false, vec![b()], vec![4], [-99., -198., -97., -196.]),
                    (true, vec![shape()], vec![1, 4], [11., 12., 13., 14.]),
                    (
                        false,
                        vec![shape(), b(), w()],
                        vec![1, 4],
                        [-98., -199., -96., -197.],
                    ),
                ] {
                    let found = run(&session, c, &given);
                    assert_eq!(found, Ok((dims, expected.to_vec())), "{c} {given:?}");
                }
            }
            let kept = session.overrides.as_ref().expect("there are defaults");
            assert_eq!(kept.sessions.lock().expect("no panic").len(), KEPT);
            let wrong = run(&session, true, &[("w", tensor(&[3, 2], &[0f32; 6]).into())]);
            assert_eq!(
                wrong.map_err(|error| error.code()),
                Err("LETHE-INPUT-SHAPE")
            );
            let twice = run(&session, true, &[w(), w()]);
            assert_eq!(
                twice.map_err(|error| error.code()),
                Err("LETHE-INPUT-UNKNOWN")
            );
        }
    }

    #[test]
    fn before_ir_version_4_initializers_are_constants() {
        let session = Session::from_model(&model(3), &SessionOptions::default()).expect("loads");
        assert!(session.optional_inputs().is_empty() && session.overrides.is_none());
        assert_eq!(
            run(&session, true, &[]).expect("runs").1,
            [11., 12., 13., 14.]
        );
        let given = run(&session, true, &[("b", tensor(&[1], &[1f32]).into())]);
        assert_eq!(
            given.map_err(|error| error.code()),
            Err("LETHE-INPUT-UNKNOWN")
        );
    }
}
