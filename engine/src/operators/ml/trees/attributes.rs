//! Trees from attributes: lists in which the i-th elements belong together.

use std::collections::HashMap;

use super::{Aggregate, Comparison, Forest, TreeNode, broken};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::conversion::convert;
use crate::limits;
use crate::tensor::{Buffer, DataType, Tensor, TensorViewMut};

/// A count that is no larger than any real model needs.
pub(super) fn count(node: &Attributes, name: &str, default: i64) -> Result<usize, OpError> {
    let count = node.int_or(name, default)?;
    usize::try_from(count)
        .ok()
        .filter(|&n| n > 0 && n < 1 << 24)
        .ok_or_else(|| OpError::value(name, "a number from 1 to 16777215", count))
}

fn tensor_doubles(tensor: &Tensor) -> Result<Vec<f64>, OpError> {
    let mut bytes = Buffer::try_zeroed(tensor.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float64, tensor.shape(), &mut bytes);
    convert(tensor.view(), &mut wide, Default::default())?;
    Ok(limits::copied(wide.as_mut_slice::<f64>()?))
}

/// Numbers as a list of floats or, under another name, as a tensor.
fn numbers(node: &Attributes, name: &str) -> Result<Vec<f64>, OpError> {
    if let Some(tensor) = node.optional_tensor(&format!("{name}_as_tensor"))? {
        return tensor_doubles(tensor);
    }
    let floats = node.optional_floats(name)?.unwrap_or(&[]);
    Ok(floats.iter().map(|&x| x.into()).collect())
}

fn list<'a>(node: &'a Attributes, name: &str, len: usize) -> Result<&'a [i64], OpError> {
    let list = node.optional_ints(name)?.unwrap_or(&[]);
    match list.len() == len {
        true => Ok(list),
        false => Err(OpError::value(name, format!("{len} numbers"), list.len())),
    }
}

fn index(name: &str, value: i64) -> Result<usize, OpError> {
    usize::try_from(value).map_err(|_| OpError::value(name, "numbers of at least 0", value))
}

/// The form before opset 5: nodes are found by tree and number. `prefix` is `target` or `class`.
pub(super) fn by_node_ids(
    node: &Attributes,
    prefix: &str,
    targets: usize,
) -> Result<Forest, OpError> {
    let modes = node.strings("nodes_modes")?;
    let n = modes.len();
    let values = numbers(node, "nodes_values")?;
    if values.len() != n {
        return Err(OpError::value(
            "nodes_values",
            format!("{n} numbers"),
            values.len(),
        ));
    }
    let trees = list(node, "nodes_treeids", n)?;
    let ids = list(node, "nodes_nodeids", n)?;
    let features = list(node, "nodes_featureids", n)?;
    let yes = list(node, "nodes_truenodeids", n)?;
    let no = list(node, "nodes_falsenodeids", n)?;
    let missing = node
        .optional_ints("nodes_missing_value_tracks_true")?
        .unwrap_or(&[]);
    let places: HashMap<(i64, i64), usize> = (0..n).map(|i| ((trees[i], ids[i]), i)).collect();
    let place = |tree: i64, id: i64| {
        let found = places.get(&(tree, id)).copied();
        found.ok_or_else(|| broken(format!("no node {id} in tree {tree}")))
    };
    let mut is_child = limits::filled(false, n);
    let mut nodes = limits::with_room(n);
    for i in 0..n {
        let comparison = match modes[i].as_str() {
            "LEAF" => None,
            "BRANCH_LEQ" => Some(Comparison::LessOrEqual),
            "BRANCH_LT" => Some(Comparison::Less),
            "BRANCH_GTE" => Some(Comparison::GreaterOrEqual),
            "BRANCH_GT" => Some(Comparison::Greater),
            "BRANCH_EQ" => Some(Comparison::Equal),
            "BRANCH_NEQ" => Some(Comparison::NotEqual),
            other => return Err(broken(format!("mode {other:?}"))),
        };
        nodes.push(match comparison {
            None => TreeNode::Leaf(Vec::new()),
            Some(comparison) => {
                let (yes, no) = (place(trees[i], yes[i])?, place(trees[i], no[i])?);
                is_child[yes] = true;
                is_child[no] = true;
                TreeNode::Branch {
                    feature: index("nodes_featureids", features[i])?,
                    comparison,
                    value: values[i],
                    members: Vec::new(),
                    yes,
                    no,
                    missing_is_yes: missing.get(i).is_some_and(|&m| m != 0),
                }
            }
        });
    }
    let weights = numbers(node, &format!("{prefix}_weights"))?;
    let name = |what: &str| format!("{prefix}_{what}");
    let weight_trees = list(node, &name("treeids"), weights.len())?;
    let weight_nodes = list(node, &name("nodeids"), weights.len())?;
    let weight_ids = list(node, &name("ids"), weights.len())?;
    for (i, weight) in weights.iter().enumerate() {
        let at = place(weight_trees[i], weight_nodes[i])?;
        match &mut nodes[at] {
            TreeNode::Leaf(leaf) => leaf.push((index(&name("ids"), weight_ids[i])?, *weight)),
            TreeNode::Branch { .. } => return Err(broken("a weight at a branch")),
        }
    }
    let aggregate = match node.string_or("aggregate_function", "SUM")? {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => {
            return Err(OpError::value(
                "aggregate_function",
                "SUM, AVERAGE, MIN or MAX",
                other,
            ));
        }
    };
    let roots = (0..n).filter(|&i| !is_child[i]).collect();
    let base = numbers(node, "base_values")?;
    Forest {
        nodes,
        roots,
        targets,
        base,
        aggregate,
    }
    .checked()
}

/// The form since opset 5: branches and leaves are lists of their own, found by position.
pub(super) fn by_position(node: &Attributes) -> Result<Forest, OpError> {
    let modes = node.tensor("nodes_modes")?.as_slice::<u8>()?;
    let n = modes.len();
    let splits = tensor_doubles(node.tensor("nodes_splits")?)?;
    let weights = tensor_doubles(node.tensor("leaf_weights")?)?;
    if splits.len() != n {
        return Err(OpError::value(
            "nodes_splits",
            format!("{n} numbers"),
            splits.len(),
        ));
    }
    let features = list(node, "nodes_featureids", n)?;
    let yes = list(node, "nodes_truenodeids", n)?;
    let no = list(node, "nodes_falsenodeids", n)?;
    let yes_leafs = list(node, "nodes_trueleafs", n)?;
    let no_leafs = list(node, "nodes_falseleafs", n)?;
    let missing = node
        .optional_ints("nodes_missing_value_tracks_true")?
        .unwrap_or(&[]);
    let targets = list(node, "leaf_targetids", weights.len())?;
    // Sets stand one after another, each ended by NaN, in the order of their nodes.
    let members = match node.optional_tensor("membership_values")? {
        Some(tensor) => tensor_doubles(tensor)?,
        None => Vec::new(),
    };
    let mut sets = members.split(|x| x.is_nan());
    let place = |id: i64, is_leaf: bool| -> Result<usize, OpError> {
        let id = index("nodes", id)?;
        Ok(if is_leaf { n.saturating_add(id) } else { id })
    };
    let mut nodes = limits::with_room(n + weights.len());
    for i in 0..n {
        let comparison = match modes[i] {
            0 => Comparison::LessOrEqual,
            1 => Comparison::Less,
            2 => Comparison::GreaterOrEqual,
            3 => Comparison::Greater,
            4 => Comparison::Equal,
            5 => Comparison::NotEqual,
            6 => Comparison::Member,
            other => return Err(broken(format!("mode {other}"))),
        };
        let members = match comparison {
            Comparison::Member => sets.next().unwrap_or(&[]).to_vec(),
            _ => Vec::new(),
        };
        nodes.push(TreeNode::Branch {
            feature: index("nodes_featureids", features[i])?,
            comparison,
            value: splits[i],
            members,
            yes: place(yes[i], yes_leafs[i] != 0)?,
            no: place(no[i], no_leafs[i] != 0)?,
            missing_is_yes: missing.get(i).is_some_and(|&m| m != 0),
        });
    }
    for (&target, &weight) in targets.iter().zip(&weights) {
        let target = index("leaf_targetids", target)?;
        nodes.push(TreeNode::Leaf(vec![(target, weight)]));
    }
    let roots = node
        .ints("tree_roots")?
        .iter()
        .map(|&root| index("tree_roots", root))
        .collect::<Result<_, _>>()?;
    let aggregate = match node.int_or("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(OpError::value("aggregate_function", "0 to 3", other)),
    };
    let targets = count(node, "n_targets", 1)?;
    Forest {
        nodes,
        roots,
        targets,
        base: Vec::new(),
        aggregate,
    }
    .checked()
}
