//! From ONNX messages to a [`Graph`]: names become ids, nodes are ordered, functions are inlined,
//! operators are looked up and parsed.

use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::functions::{FunctionTable, Inlined};
use super::order::sorted;
use super::{Attributes, Dim, Graph, Node, ValueId, ValueInfo, ValueType};
use crate::error::{Error, NodeName, OpError};
use crate::graph::attributes::Attribute;
use crate::onnx::external_data::ExternalData;
use crate::onnx::{proto, values};
use crate::operators::{self, ONNX_DOMAIN};
use crate::session::Budget;
use crate::tensor::{DataType, Tensor, ValueKind};

/// What [`build`] needs besides the model.
pub struct BuildOptions<'a> {
    /// Files beside the model.
    pub files: &'a dyn ExternalData,
    /// Limits on nodes, nesting and expanded sparse tensors.
    pub budget: &'a Budget,
}

/// The graph of a model.
///
/// # Errors
/// Where the model breaks a rule of ONNX, uses an operator that Lethe does not have, or exceeds
/// the budget.
pub fn build(model: &proto::Model, options: &BuildOptions<'_>) -> Result<Graph, Error> {
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| Error::malformed("there is no graph"))?;
    let builder = Builder {
        options,
        functions: FunctionTable::new(&model.functions),
        node_count: std::cell::Cell::new(0),
    };
    check_ir_version(model)?;
    let opsets = opsets(&model.opset_import)?;
    let (graph, captures) = builder.graph(graph, &opsets, None, 0)?;
    match captures.first() {
        Some(name) => Err(undefined(name)),
        None => Ok(graph),
    }
}

/// Opset versions by domain.
pub(super) type Opsets = HashMap<String, i64>;

/// The newest version of the file format that is known.
const NEWEST_IR_VERSION: i64 = 14;

fn check_ir_version(model: &proto::Model) -> Result<(), Error> {
    match model.ir_version {
        Some(found) if found > NEWEST_IR_VERSION => Err(Error::Version {
            what: "IR version".into(),
            found,
            newest: NEWEST_IR_VERSION,
        }),
        _ => Ok(()),
    }
}

/// Opsets by domain, the default domain under its long name.
///
/// # Errors
/// Where one is newer than those that are known: its operators may mean something else.
pub(super) fn opsets(imports: &[proto::OperatorSetId]) -> Result<Opsets, Error> {
    let versions = imports.iter().map(version_of);
    for (domain, found) in versions.clone() {
        if let Some(newest) = operators::newest_opset(domain)
            && found > newest
        {
            return Err(Error::Version {
                what: format!("{domain} opset"),
                found,
                newest,
            });
        }
    }
    Ok(versions
        .map(|(domain, version)| (domain.into(), version))
        .collect())
}

fn version_of(import: &proto::OperatorSetId) -> (&str, i64) {
    (
        domain_name(import.domain.as_deref()),
        import.version.unwrap_or(1),
    )
}

/// Opset versions that a model imports, by domain, sorted.
pub fn opset_versions(model: &proto::Model) -> Vec<(String, i64)> {
    let versions = model.opset_import.iter().map(version_of);
    let versions: BTreeMap<&str, i64> = versions.collect();
    versions
        .into_iter()
        .map(|(domain, version)| (domain.into(), version))
        .collect()
}

/// Inputs of a model that have an initializer as their default. Before IR version 4 initializers had to be
/// among the inputs, and are constants.
pub fn inputs_with_defaults(model: &proto::Model) -> Vec<ValueInfo> {
    let Some(graph) = model.graph.as_ref().filter(|_| model.ir_version >= Some(4)) else {
        return Vec::new();
    };
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.filter_map(|sparse| sparse.values.as_ref()?.name.as_deref());
    let dense = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref());
    let defaults: HashSet<&str> = dense.chain(sparse).collect();
    let info = |input: &proto::ValueInfo| {
        let name = input
            .name
            .as_deref()
            .filter(|name| defaults.contains(name))?;
        Some(ValueInfo {
            name: name.into(),
            value_type: value_type(input.r#type.as_ref()),
        })
    };
    graph.input.iter().filter_map(info).collect()
}

/// A node's domain, the default one under its long name.
pub(super) fn domain_name(domain: Option<&str>) -> &str {
    match domain {
        None | Some("") => ONNX_DOMAIN,
        Some(domain) => domain,
    }
}

fn undefined(name: &str) -> Error {
    Error::invalid(format!("value {name:?} is used and nothing produces it"))
}

struct Builder<'a> {
    options: &'a BuildOptions<'a>,
    functions: FunctionTable<'a>,
    node_count: std::cell::Cell<usize>,
}

/// The names that are known while a graph is built, and the scope around it.
struct Scope<'a> {
    graph: Graph,
    names: HashMap<String, ValueId>,
    /// Initializers that stand there several times and differ: an error where one is used.
    ambiguous: HashSet<String>,
    outer: Option<&'a Scope<'a>>,
    /// Names taken from the scope around, in the order of the inputs added for them.
    captures: Vec<String>,
}

impl Scope<'_> {
    /// The value of a name in this scope or, captured, in one around it.
    fn resolve(&mut self, name: &str) -> Result<ValueId, Error> {
        self.check_ambiguous(name)?;
        if let Some(&id) = self.names.get(name) {
            return Ok(id);
        }
        let found = self.outer.map_or(Ok(None), |outer| outer.find(name))?;
        let (value_type, constant) = found.ok_or_else(|| undefined(name))?;
        let id = match constant {
            // Constants are shared, so a subgraph may as well have them as its own.
            Some(tensor) => self.graph.add_constant(name, tensor),
            None => {
                self.captures.push(name.into());
                self.graph.add_value(name, value_type)
            }
        };
        self.names.insert(name.into(), id);
        Ok(id)
    }

    fn find(&self, name: &str) -> Result<Option<(ValueType, Option<Tensor>)>, Error> {
        self.check_ambiguous(name)?;
        match self.names.get(name) {
            Some(&id) => {
                let value_type = self.graph.value(id).value_type.clone();
                Ok(Some((value_type, self.graph.constants.get(&id).cloned())))
            }
            None => self.outer.map_or(Ok(None), |outer| outer.find(name)),
        }
    }

    fn check_ambiguous(&self, name: &str) -> Result<(), Error> {
        if self.ambiguous.contains(name) {
            let text = format!("initializer {name:?} stands there twice, with different contents");
            return Err(Error::invalid(text));
        }
        Ok(())
    }

    fn define(&mut self, name: &str, value_type: ValueType) -> Result<ValueId, Error> {
        let id = self.graph.add_value(name, value_type);
        match self.names.insert(name.into(), id) {
            None => Ok(id),
            Some(_) => Err(Error::invalid(format!("value {name:?} is produced twice"))),
        }
    }

    fn define_constant(&mut self, name: &str, tensor: Tensor) -> Result<(), Error> {
        let id = self.define(name, ValueType::UNKNOWN)?;
        self.graph.make_constant(id, tensor);
        Ok(())
    }

    /// A constant of the file. Converters write some of them several times; the same one may be.
    fn define_initializer(&mut self, name: &str, tensor: Tensor) -> Result<(), Error> {
        match self.names.get(name) {
            None => return self.define_constant(name, tensor),
            Some(first) if self.graph.constants.get(first) == Some(&tensor) => {}
            Some(_) => drop(self.ambiguous.insert(name.into())),
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Builds a graph and tells which names it captures.
    fn graph(
        &self,
        message: &proto::Graph,
        opsets: &Opsets,
        outer: Option<&Scope<'_>>,
        depth: usize,
    ) -> Result<(Graph, Vec<String>), Error> {
        self.options.budget.check_nesting(depth)?;
        let mut scope = Scope {
            graph: Graph::default(),
            names: HashMap::new(),
            ambiguous: HashSet::new(),
            outer,
            captures: Vec::new(),
        };
        for tensor in &message.initializer {
            let name = tensor.name.as_deref().unwrap_or_default();
            scope
                .define_initializer(name, values::tensor_from_proto(tensor, self.options.files)?)?;
        }
        for sparse in &message.sparse_initializer {
            let limit = self.options.budget.memory_bytes;
            let tensor = values::tensor_from_sparse(sparse, self.options.files, limit)?;
            let name = sparse
                .values
                .as_ref()
                .and_then(|v| v.name.as_deref())
                .unwrap_or_default();
            scope.define_initializer(name, tensor)?;
        }
        for input in &message.input {
            let name = input.name.as_deref().unwrap_or_default();
            // Initializers among the inputs are defaults, constant for all who give nothing else.
            if !scope.names.contains_key(name) {
                let id = scope.define(name, value_type(input.r#type.as_ref()))?;
                scope.graph.inputs.push(id);
            }
        }
        let mut declared: HashMap<&str, ValueType> = HashMap::new();
        for info in message.value_info.iter().chain(&message.output) {
            if let Some(name) = &info.name {
                declared.insert(name, value_type(info.r#type.as_ref()));
            }
        }
        self.nodes(&message.node, opsets, &mut scope, &declared, depth)?;
        for output in &message.output {
            let id = scope.resolve(output.name.as_deref().unwrap_or_default())?;
            scope.graph.outputs.push(id);
        }
        for name in &scope.captures {
            let id = scope.names[name];
            scope.graph.inputs.push(id);
        }
        Ok((scope.graph, scope.captures))
    }

    fn nodes(
        &self,
        nodes: &[proto::Node],
        opsets: &Opsets,
        scope: &mut Scope<'_>,
        declared: &HashMap<&str, ValueType>,
        depth: usize,
    ) -> Result<(), Error> {
        for index in sorted(nodes)? {
            let node = &nodes[index];
            let count = self.node_count.get() + 1;
            self.node_count.set(count);
            self.options.budget.check_nodes(count)?;
            let name = node_name(node, index, opsets);
            if name.op_type == "Constant" && name.domain == ONNX_DOMAIN {
                self.constant(node, &name, scope)?;
            } else if let Some(entry) = operators::find(&name.domain, &name.op_type, name.opset) {
                self.node(node, name, entry, opsets, scope, declared, depth)?;
            } else if let Some(function) = self.functions.find(node) {
                self.options.budget.check_nesting(depth + 1)?;
                let Inlined { nodes, opsets } = function.inline(node, index)?;
                self.nodes(&nodes, &opsets, scope, declared, depth + 1)?;
            } else {
                return Err(Error::UnknownOperator {
                    node: Box::new(name),
                });
            }
        }
        Ok(())
    }

    fn constant(
        &self,
        node: &proto::Node,
        name: &NodeName,
        scope: &mut Scope<'_>,
    ) -> Result<(), Error> {
        let fail = |source| Error::Node {
            node: Box::new(name.clone()),
            source,
        };
        let sparse = node.attribute.iter().find_map(|a| a.sparse_tensor.as_ref());
        let tensor = if let Some(sparse) = sparse {
            let limit = self.options.budget.memory_bytes;
            values::tensor_from_sparse(sparse, self.options.files, limit)?
        } else {
            let attributes = self.attributes(node, name, &mut Vec::new())?;
            let (inputs, outputs) = (listed(&node.input), listed(&node.output));
            let checked = operators::CONSTANT.check(&name.domain, &inputs, &outputs, &attributes);
            checked.map_err(fail)?;
            constant_tensor(&attributes).map_err(fail)?
        };
        match node.output.first().filter(|n| !n.is_empty()) {
            Some(output) => scope.define_constant(output, tensor),
            None => Ok(()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one recursive walk")]
    fn node(
        &self,
        message: &proto::Node,
        name: NodeName,
        entry: &operators::Entry,
        opsets: &Opsets,
        scope: &mut Scope<'_>,
        declared: &HashMap<&str, ValueType>,
        depth: usize,
    ) -> Result<(), Error> {
        let mut inputs: SmallVec<[Option<ValueId>; 4]> = SmallVec::new();
        for input in &message.input {
            inputs.push(if input.is_empty() {
                None
            } else {
                Some(scope.resolve(input)?)
            });
        }
        let mut subgraph_messages = Vec::new();
        let attributes = self.attributes(message, &name, &mut subgraph_messages)?;
        let fail = |source| Error::Node {
            node: Box::new(name.clone()),
            source,
        };
        let (listed_inputs, listed_outputs) = (listed(&message.input), listed(&message.output));
        let signature = entry.signature;
        signature
            .check(entry.domain, &listed_inputs, &listed_outputs, &attributes)
            .map_err(fail)?;
        let mut built = Vec::new();
        for subgraph in subgraph_messages {
            built.push(self.graph(subgraph, opsets, Some(scope), depth + 1)?);
        }
        // Every subgraph gets every capture, in one order, so that the node has one list of them.
        let mut all: Vec<String> = Vec::new();
        for name in built.iter().flat_map(|(_, captures)| captures) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        let mut subgraphs = Vec::new();
        for (mut graph, captures) in built {
            let own = graph.inputs.len() - captures.len();
            let taken: Vec<ValueId> = graph.inputs.drain(own..).collect();
            for name in &all {
                let id = match captures.iter().position(|c| c == name) {
                    Some(i) => taken[i],
                    None => graph.add_value(name.as_str(), ValueType::UNKNOWN),
                };
                graph.inputs.push(id);
            }
            subgraphs.push(graph);
        }
        for name in &all {
            inputs.push(Some(scope.resolve(name)?));
        }
        let operator = (entry.parse)(&attributes).map_err(fail)?;
        let mut outputs: SmallVec<[Option<ValueId>; 2]> = SmallVec::new();
        for output in &message.output {
            outputs.push(if output.is_empty() {
                None
            } else {
                let known = declared
                    .get(output.as_str())
                    .cloned()
                    .unwrap_or(ValueType::UNKNOWN);
                Some(scope.define(output, known)?)
            });
        }
        scope.graph.nodes.push(Node {
            name: Arc::new(name),
            inputs,
            outputs,
            attributes,
            operator: operator.into(),
            subgraphs,
            captures: all.len(),
        });
        Ok(())
    }

    /// Attributes of a node; its subgraphs are put into `subgraphs`, for which the attributes hold
    /// the indices.
    fn attributes<'m>(
        &self,
        node: &'m proto::Node,
        name: &NodeName,
        subgraphs: &mut Vec<&'m proto::Graph>,
    ) -> Result<Attributes, Error> {
        let mut attributes = Attributes::new(name.opset, node.output.len());
        let mut sorted: Vec<&proto::Attribute> = node.attribute.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        for attribute in sorted {
            let key = attribute.name.as_deref().unwrap_or_default();
            let fail = |expected: &str, found: &str| Error::Node {
                node: Box::new(name.clone()),
                source: OpError::Attribute {
                    name: key.into(),
                    expected: expected.into(),
                    found: found.into(),
                },
            };
            let value = self.attribute(attribute, subgraphs, &fail)?;
            attributes.insert(key, value);
        }
        Ok(attributes)
    }

    fn attribute<'m>(
        &self,
        message: &'m proto::Attribute,
        subgraphs: &mut Vec<&'m proto::Graph>,
        fail: &dyn Fn(&str, &str) -> Error,
    ) -> Result<Attribute, Error> {
        use proto::AttributeType as T;
        let tensor = |t| values::tensor_from_proto(t, self.options.files).map(Tensor::aligned);
        let text = |s: &bytes::Bytes| {
            String::from_utf8(s.to_vec()).map_err(|_| fail("UTF-8 text", "other bytes"))
        };
        let absent = || fail("a value", "none");
        Ok(match kind_of(message) {
            T::Float => Attribute::Float(message.f.unwrap_or_default()),
            T::Int => Attribute::Int(message.i.unwrap_or_default()),
            T::String => Attribute::String(text(&message.s.clone().unwrap_or_default())?),
            T::Tensor => Attribute::Tensor(tensor(message.t.as_ref().ok_or_else(absent)?)?),
            T::Floats => Attribute::Floats(message.floats.clone()),
            T::Ints => Attribute::Ints(message.ints.clone()),
            T::Strings => {
                Attribute::Strings(message.strings.iter().map(text).collect::<Result<_, _>>()?)
            }
            T::Tensors => Attribute::Tensors(
                message
                    .tensors
                    .iter()
                    .map(tensor)
                    .collect::<Result<_, _>>()?,
            ),
            T::Graph => {
                subgraphs.push(message.g.as_ref().ok_or_else(absent)?);
                Attribute::Graph(subgraphs.len() - 1)
            }
            T::TypeProto => match value_type(message.tp.as_ref()).kind {
                Some(kind) => Attribute::Type(kind),
                None => return Err(absent()),
            },
            T::Undefined | T::Graphs | T::SparseTensor | T::SparseTensors | T::TypeProtos => {
                return Err(fail("a type that some operator uses", "another"));
            }
        })
    }
}

/// Which of a node's inputs or outputs are there: an empty name stands for an absent one.
fn listed(names: &[String]) -> SmallVec<[bool; 8]> {
    names.iter().map(|name| !name.is_empty()).collect()
}

/// The declared type of an attribute or, in old models that declare none, the field that is set.
fn kind_of(message: &proto::Attribute) -> proto::AttributeType {
    use proto::AttributeType as T;
    let declared = message
        .r#type
        .and_then(|t| T::try_from(t).ok())
        .unwrap_or(T::Undefined);
    let guesses = [
        (message.f.is_some(), T::Float),
        (message.i.is_some(), T::Int),
        (message.s.is_some(), T::String),
        (message.t.is_some(), T::Tensor),
        (message.g.is_some(), T::Graph),
        (!message.floats.is_empty(), T::Floats),
        (!message.ints.is_empty(), T::Ints),
        (!message.strings.is_empty(), T::Strings),
        (!message.tensors.is_empty(), T::Tensors),
    ];
    match declared {
        T::Undefined => guesses.iter().find(|g| g.0).map_or(T::Undefined, |g| g.1),
        declared => declared,
    }
}

fn node_name(node: &proto::Node, index: usize, opsets: &Opsets) -> NodeName {
    let domain = domain_name(node.domain.as_deref());
    let name = node.name.clone().filter(|n| !n.is_empty());
    NodeName {
        name: name.unwrap_or_else(|| format!("#{index}")),
        op_type: node.op_type.clone().unwrap_or_default(),
        domain: domain.into(),
        opset: opsets.get(domain).copied().unwrap_or(1),
    }
}

/// The tensor of a `Constant` node, in any of the forms that the versions have.
fn constant_tensor(attributes: &Attributes) -> Result<Tensor, OpError> {
    let Some((name, value)) = attributes
        .iter()
        .find(|(name, _)| name.starts_with("value"))
    else {
        return Err(OpError::MissingAttribute {
            name: "value".into(),
        });
    };
    match value {
        Attribute::Tensor(tensor) => Ok(tensor.clone()),
        Attribute::Float(v) => Ok(Tensor::scalar(*v)),
        Attribute::Int(v) => Ok(Tensor::scalar(*v)),
        Attribute::String(v) => Tensor::from_strings(&[], vec![v.clone()]),
        Attribute::Floats(v) => Tensor::from_slice(&[v.len()], v),
        Attribute::Ints(v) => Tensor::from_slice(&[v.len()], v),
        Attribute::Strings(v) => Tensor::from_strings(&[v.len()], v.clone()),
        _ => Err(OpError::Attribute {
            name: name.into(),
            expected: "a tensor, number or text".into(),
            found: "something else".into(),
        }),
    }
}

/// The type that a `TypeProto` declares; parts it leaves out or that are not known stay unknown.
fn value_type(message: Option<&proto::Type>) -> ValueType {
    use proto::TypeValue::*;
    let kind = message.and_then(value_kind);
    let dims = match message.and_then(|m| m.value.as_ref()) {
        Some(Tensor(t)) => t
            .shape
            .as_ref()
            .map(|shape| shape.dim.iter().map(dim).collect()),
        _ => None,
    };
    ValueType { kind, dims }
}

fn dim(message: &proto::Dimension) -> Dim {
    match &message.value {
        Some(proto::DimensionValue::Value(n)) => Dim::declared(*n),
        Some(proto::DimensionValue::Param(name)) if !name.is_empty() => {
            Dim::Symbol(name.as_str().into())
        }
        _ => Dim::Unknown,
    }
}

fn value_kind(message: &proto::Type) -> Option<ValueKind> {
    use proto::TypeValue::*;
    let data_type = |code: Option<i32>| code.and_then(DataType::from_code);
    let element = |e: &proto::ElementType| e.elem_type.as_deref().and_then(value_kind);
    Some(match message.value.as_ref()? {
        Tensor(t) | SparseTensor(t) => ValueKind::Tensor(data_type(t.elem_type)?),
        Sequence(s) => ValueKind::Sequence(Box::new(element(s)?)),
        Optional(o) => ValueKind::Optional(Box::new(element(o)?)),
        Map(m) => match value_kind(m.value_type.as_deref()?)? {
            ValueKind::Tensor(value) => ValueKind::Map(data_type(m.key_type)?, value),
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx;
    use crate::onnx::external_data::NoExternalData;
    use crate::onnx::writer::ModelWriter;
    use crate::tensor::Value;
    use crate::{Session, SessionOptions};

    /// `y = x + w`, or `y = x` where `w` is not used, with these two as `w`.
    fn sum(first: f32, second: f32, uses: bool) -> Result<Vec<f32>, String> {
        let inputs: &[&str] = if uses { &["x", "w"] } else { &["x"] };
        let op_type = if uses { "Add" } else { "Identity" };
        let model = ModelWriter::new(17)
            .input("x", DataType::Float32, &["1"])
            .constant("w", &Tensor::scalar(first))
            .constant("w", &Tensor::scalar(second))
            .node(op_type, inputs, &["y"], vec![])
            .output("y");
        let text = |error: crate::Error| error.to_string();
        let session = Session::load(model.to_bytes(), &SessionOptions::default()).map_err(text)?;
        let x = Value::Tensor(Tensor::from_slice(&[1], &[1f32]).expect("one element"));
        let outputs = session.run(&[("x", x)]).map_err(text)?;
        let y = outputs[0].1.as_tensor().expect("a tensor");
        Ok(y.as_slice::<f32>().expect("f32").to_vec())
    }

    #[test]
    fn an_initializer_may_stand_there_twice_where_that_says_nothing_else() {
        assert_eq!(sum(2.0, 2.0, true), Ok(vec![3.0]));
        assert_eq!(sum(2.0, 3.0, false), Ok(vec![1.0]));
        let error = sum(2.0, 3.0, true).expect_err("which one?");
        assert!(error.contains("\"w\""), "{error}");
    }

    /// The error of loading a model of these nodes, which has the inputs x and z and the output y.
    fn refusal(model: ModelWriter) -> Option<(&'static str, String)> {
        let model = model
            .input("x", DataType::Float32, &["2"])
            .input("z", DataType::Float32, &["2"])
            .output("y");
        let loaded = Session::load(model.to_bytes(), &SessionOptions::default());
        loaded.err().map(|error| (error.code(), error.to_string()))
    }

    #[test]
    fn what_an_operator_does_not_have_is_refused_at_load() {
        let int = |name: &'static str| vec![(name, Attribute::Int(1))];
        for (op_type, inputs, outputs, attributes, expected) in [
            ("Neg", &["x"][..], &["y"][..], vec![], None),
            ("Neg", &["x", ""], &["y", ""], int("__note"), None),
            (
                "Softmax",
                &["x"],
                &["y"],
                int("temperature"),
                Some((
                    "LETHE-NODE-ATTRIBUTE",
                    "node \"#0\" (ai.onnx.Softmax, opset 17): attribute temperature is unknown: the \
                     operator has axis (opsets are known up to 28)",
                )),
            ),
            (
                "Erf",
                &["x", "z"],
                &["y"],
                vec![],
                Some((
                    "LETHE-NODE-SURPLUS",
                    "node \"#0\" (ai.onnx.Erf, opset 17): 2 inputs, the operator has at most 1: input",
                )),
            ),
            (
                "Erf",
                &["x"],
                &["y", "other"],
                vec![],
                Some((
                    "LETHE-NODE-SURPLUS",
                    "node \"#0\" (ai.onnx.Erf, opset 17): 2 outputs, the operator has at most 1: output",
                )),
            ),
            (
                "Add",
                &["x"],
                &["y"],
                vec![],
                Some((
                    "LETHE-NODE-INPUT-MISSING",
                    "node \"#0\" (ai.onnx.Add, opset 17): input B is missing",
                )),
            ),
            (
                "Constant",
                &[],
                &["y"],
                int("valu"),
                Some((
                    "LETHE-NODE-ATTRIBUTE",
                    "node \"#0\" (ai.onnx.Constant, opset 17): attribute valu is unknown: the operator \
                     has sparse_value, value, value_float, value_floats, value_int, value_ints, \
                     value_string, value_strings (opsets are known up to 28)",
                )),
            ),
        ] {
            let found = refusal(ModelWriter::new(17).node(op_type, inputs, outputs, attributes));
            let expected = expected.map(|(code, text)| (code, text.to_owned()));
            assert_eq!(found, expected, "{op_type}");
        }
    }

    #[test]
    fn versions_newer_than_known_are_refused_at_load() {
        let neg = |model: ModelWriter| model.node("Neg", &["x"], &["y"], vec![]);
        for (model, expected) in [
            (ModelWriter::new(28), None),
            (ModelWriter::new(17).import("ai.onnx.ml", 5), None),
            (ModelWriter::new(17).import("example.org", 99), None),
            (
                ModelWriter::new(99),
                Some("ai.onnx opset 99 is newer than the newest known, 28"),
            ),
            (
                ModelWriter::new(17).import("ai.onnx.ml", 6),
                Some("ai.onnx.ml opset 6 is newer than the newest known, 5"),
            ),
            (
                ModelWriter::new(17).import("com.microsoft", 2),
                Some("com.microsoft opset 2 is newer than the newest known, 1"),
            ),
        ] {
            let found = refusal(neg(model));
            let expected = expected.map(|text| ("LETHE-MODEL-VERSION", text.to_owned()));
            assert_eq!(found, expected);
        }
        let mut model = onnx::read_model(neg(ModelWriter::new(17)).output("y").to_bytes().into())
            .expect("a model");
        for (version, is_known) in [(14, true), (15, false)] {
            model.ir_version = Some(version);
            model.graph.as_mut().expect("a graph").input.clear();
            let options = BuildOptions {
                files: &NoExternalData,
                budget: &Budget::default(),
            };
            let error = build(&model, &options)
                .map(drop)
                .expect_err("x is not there");
            let code = if is_known {
                "LETHE-MODEL-INVALID"
            } else {
                "LETHE-MODEL-VERSION"
            };
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
