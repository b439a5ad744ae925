//! Time by node and by operator.

use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Instant;

use lethe_engine::Value;
use lethe_engine::plan::Profile;

use super::super::{CommandError, Loaded};
use crate::settings::Device;

/// Nodes that are printed; JSON has all of them.
const PRINTED: usize = 15;

/// Mean times of a run, longest first.
pub(super) struct Times {
    nodes: Vec<Entry>,
    operators: Vec<Entry>,
}

struct Entry {
    name: String,
    op_type: String,
    nodes: usize,
    ms: f64,
}

/// Runs so many times with a clock around each node.
pub(super) fn measure(
    loaded: &Loaded,
    inputs: &[(&str, Value)],
    runs: usize,
    device: Device,
) -> Result<Times, CommandError> {
    let session = loaded.runner.session().ok_or_else(|| {
        CommandError::Request("--profile sees into this process only: --isolation none".into())
    })?;
    if device != Device::Cpu {
        let reason = format!("--profile times the processor, not device {device}");
        return Err(CommandError::Request(reason));
    }
    let mut profile = Profile::default();
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    for _ in 0..runs {
        session
            .run_profiled(inputs, None, &mut profile, &clock)
            .map_err(|e| loaded.in_model(e.into()))?;
    }
    let mut nodes: Vec<Entry> = session
        .plan()
        .steps
        .iter()
        .zip(&profile.steps)
        .map(|(step, times)| Entry {
            name: step.name.name.clone(),
            op_type: step.name.op_type.clone(),
            nodes: 1,
            ms: times.time as f64 / 1e6 / runs as f64,
        })
        .collect();
    let mut by_operator: BTreeMap<&str, Entry> = BTreeMap::new();
    for node in &nodes {
        let entry = by_operator.entry(&node.op_type).or_insert_with(|| Entry {
            name: String::new(),
            op_type: node.op_type.clone(),
            nodes: 0,
            ms: 0.0,
        });
        entry.nodes += 1;
        entry.ms += node.ms;
    }
    let mut operators: Vec<Entry> = by_operator.into_values().collect();
    for entries in [&mut nodes, &mut operators] {
        entries.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    }
    Ok(Times { nodes, operators })
}

impl Times {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let node = |e: &Entry| json!({ "node": e.name, "operator": e.op_type, "ms": e.ms });
        let operator = |e: &Entry| json!({ "operator": e.op_type, "nodes": e.nodes, "ms": e.ms });
        json!({
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "operators": self.operators.iter().map(operator).collect::<Vec<_>>(),
        })
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let total: f64 = self.operators.iter().map(|e| e.ms).sum();
        let share = |ms: f64| 100.0 * ms / total.max(f64::MIN_POSITIVE);
        writeln!(out, "\n      ms      %  nodes  operator")?;
        for e in &self.operators {
            writeln!(
                out,
                "{:8.3} {:6.1} {:6}  {}",
                e.ms,
                share(e.ms),
                e.nodes,
                e.op_type
            )?;
        }
        writeln!(out, "\n      ms      %  node")?;
        for e in self.nodes.iter().take(PRINTED) {
            writeln!(
                out,
                "{:8.3} {:6.1}  {} ({})",
                e.ms,
                share(e.ms),
                e.name,
                e.op_type
            )?;
        }
        Ok(())
    }
}
