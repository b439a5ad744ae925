//! `lethe inspect model.wasm`: what a bundle holds, as it says itself.

use std::io::{self, Write};
use std::path::Path;

use lethe_server::TensorInfo;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::{CommandError, Outcome, megabytes};
use crate::bundle::provenance::{Provenance, read};
use lethe_sandbox::hex;

pub(super) fn inspect(path: &Path, bytes: &[u8], json: bool) -> Result<Outcome, CommandError> {
    let (provenance, licenses) = read(bytes).map_err(|error| {
        CommandError::Request(format!("{}: {error} [{}]", path.display(), error.code()))
    })?;
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{:#}", document(bytes, &provenance, &licenses)?)?,
        false => print(&mut out, bytes, &provenance, &licenses)?,
    }
    Ok(Outcome::Good)
}

/// The provenance with the file's size and hash; `inputs` and `outputs` are the first model's, as
/// in the report of an ONNX file.
fn document(bytes: &[u8], provenance: &Provenance, licenses: &str) -> io::Result<Json> {
    let mut document = serde_json::to_value(provenance)?;
    document["format"] = json!("bundle");
    document["bytes"] = json!(bytes.len());
    document["sha256"] = json!(hex::encode(Sha256::digest(bytes)));
    document["licenses"] = json!(licenses);
    if let Some(model) = provenance.models.first() {
        document["inputs"] = serde_json::to_value(&model.info.inputs)?;
        document["outputs"] = serde_json::to_value(&model.info.outputs)?;
    }
    Ok(document)
}

fn print(
    out: &mut impl Write,
    bytes: &[u8],
    provenance: &Provenance,
    licenses: &str,
) -> io::Result<()> {
    let size = megabytes(bytes.len() as u64);
    writeln!(
        out,
        "bundle      {size}, sha256 {}",
        hex::encode(Sha256::digest(bytes))
    )?;
    let simd = match provenance.relaxed_simd {
        true => "relaxed SIMD",
        false => "SIMD",
    };
    let Provenance {
        lethe,
        numerics,
        operator_set,
        ..
    } = provenance;
    writeln!(
        out,
        "made by     lethe {lethe}, guest {}",
        provenance.guest_sha256
    )?;
    writeln!(
        out,
        "settings    {numerics} numerics, {simd}, operators: {operator_set}"
    )?;
    for model in &provenance.models {
        let size = megabytes(model.bytes);
        writeln!(
            out,
            "\nmodel {}    {size}, sha256 {}",
            model.info.name, model.sha256
        )?;
        for file in &model.files {
            let size = megabytes(file.bytes);
            writeln!(
                out,
                "  file      {} {size}, sha256 {}",
                file.path, file.sha256
            )?;
        }
        let opsets: Vec<String> = model
            .opsets
            .iter()
            .map(|opset| format!("{} {}", opset.domain, opset.version))
            .collect();
        writeln!(
            out,
            "  opsets    {} (IR {})",
            opsets.join(", "),
            model.ir_version
        )?;
        if !model.producer.is_empty() {
            writeln!(out, "  producer  {}", model.producer)?;
        }
        let tensors = [
            ("input", &model.info.inputs),
            ("output", &model.info.outputs),
        ];
        for (kind, infos) in tensors {
            for TensorInfo {
                name,
                datatype,
                shape,
            } in infos
            {
                writeln!(out, "  {kind:8}  {name}: {datatype}{shape:?}")?;
            }
        }
    }
    writeln!(
        out,
        "\nlicences: {} in the section lethe.licenses",
        megabytes(licenses.len() as u64)
    )
}
