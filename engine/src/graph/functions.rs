//! Model functions: a node that calls one is replaced by the function's nodes.

use std::collections::HashMap;

use super::build::{Opsets, domain_name, opsets};
use crate::error::Error;
use crate::onnx::proto;

/// The functions of a model by domain, name and overload.
pub(super) struct FunctionTable<'a> {
    functions: Vec<((&'a str, &'a str, &'a str), Function<'a>)>,
}

/// A function of the model.
pub(super) struct Function<'a>(&'a proto::Function);

/// The nodes that stand for one call.
pub(super) struct Inlined {
    pub(super) nodes: Vec<proto::Node>,
    pub(super) opsets: Opsets,
}

impl<'a> FunctionTable<'a> {
    pub(super) fn new(functions: &'a [proto::Function]) -> Self {
        let entry = |f: &'a proto::Function| {
            let domain = domain_name(f.domain.as_deref());
            let name = f.name.as_deref().unwrap_or_default();
            (
                (domain, name, f.overload.as_deref().unwrap_or_default()),
                Function(f),
            )
        };
        Self {
            functions: functions.iter().map(entry).collect(),
        }
    }

    /// The function that a node calls, if it calls one.
    pub(super) fn find(&self, node: &proto::Node) -> Option<&Function<'a>> {
        let domain = domain_name(node.domain.as_deref());
        let name = node.op_type.as_deref().unwrap_or_default();
        let key = (domain, name, node.overload.as_deref().unwrap_or_default());
        self.functions
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, function)| function)
    }
}

impl Function<'_> {
    /// The function's nodes with the call's values and attributes put in. Names inside get a
    /// prefix that no other call shares: the call's first output and its place.
    pub(super) fn inline(&self, call: &proto::Node, index: usize) -> Result<Inlined, Error> {
        let function = self.0;
        if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
            return Err(Error::invalid(format!(
                "a call of function {:?} has {} inputs and {} outputs, the function {} and {}",
                function.name.as_deref().unwrap_or_default(),
                call.input.len(),
                call.output.len(),
                function.input.len(),
                function.output.len(),
            )));
        }
        let first = call
            .output
            .iter()
            .find(|o| !o.is_empty())
            .map_or("", String::as_str);
        let prefix = format!("{first}/{index}/");
        let mut names: HashMap<&str, String> = HashMap::new();
        for (i, formal) in function.input.iter().enumerate() {
            names.insert(formal, call.input.get(i).cloned().unwrap_or_default());
        }
        for (formal, actual) in function.output.iter().zip(&call.output) {
            if !actual.is_empty() {
                names.insert(formal, actual.clone());
            }
        }
        let substitution = Substitution {
            names,
            prefix,
            call,
            function,
        };
        Ok(Inlined {
            nodes: function.node.iter().map(|n| substitution.node(n)).collect(),
            opsets: opsets(&function.opset_import)?,
        })
    }
}

struct Substitution<'a> {
    /// What the formal inputs and outputs are called at the call.
    names: HashMap<&'a str, String>,
    prefix: String,
    call: &'a proto::Node,
    function: &'a proto::Function,
}

impl Substitution<'_> {
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(actual) => actual.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{}{name}", self.prefix),
        }
    }

    fn node(&self, node: &proto::Node) -> proto::Node {
        let mut node = node.clone();
        for name in node.input.iter_mut().chain(&mut node.output) {
            *name = self.name(name);
        }
        node.name = node.name.map(|name| format!("{}{name}", self.prefix));
        node.attribute = node
            .attribute
            .iter()
            .filter_map(|a| self.attribute(a))
            .collect();
        node
    }

    /// An attribute with references resolved; one that refers to an attribute which neither the
    /// call nor the function's defaults give is left out.
    fn attribute(&self, attribute: &proto::Attribute) -> Option<proto::Attribute> {
        let mut resolved = match attribute.ref_attr_name.as_deref().filter(|n| !n.is_empty()) {
            None => attribute.clone(),
            Some(reference) => {
                let given = self
                    .call
                    .attribute
                    .iter()
                    .chain(&self.function.attribute_proto);
                let mut value = given
                    .into_iter()
                    .find(|a| a.name.as_deref() == Some(reference))?
                    .clone();
                value.name.clone_from(&attribute.name);
                return Some(value);
            }
        };
        for graph in resolved.g.iter_mut().chain(&mut resolved.graphs) {
            self.graph(graph);
        }
        Some(resolved)
    }

    fn graph(&self, graph: &mut proto::Graph) {
        for info in graph
            .input
            .iter_mut()
            .chain(&mut graph.output)
            .chain(&mut graph.value_info)
        {
            info.name = info.name.as_deref().map(|n| self.name(n));
        }
        for tensor in &mut graph.initializer {
            tensor.name = tensor.name.as_deref().map(|n| self.name(n));
        }
        graph.node = graph.node.iter().map(|n| self.node(n)).collect();
    }
}
