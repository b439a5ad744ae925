//! What a bundle says of itself: two custom sections behind the component's others.
//!
//! ```text
//! lethe.provenance    JSON: Lethe's version, the guest's hash, settings, the models
//! lethe.licenses      text: Lethe's licences, and what the models' metadata say of theirs
//! ```

use std::io;

use lethe_engine::Numerics;
use lethe_engine::onnx::{self, proto};
use lethe_server::ModelInfo;
use serde::{Deserialize, Serialize};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Encoding, Parser, Payload};

use super::{BundleError, BundleOptions, OperatorSet};
use lethe_sandbox::ModelSource;
use lethe_sandbox::hex;
use lethe_sandbox::model_file::Content;

/// Name of the section that tells where a bundle comes from.
pub const PROVENANCE: &str = "lethe.provenance";
/// Name of the section of licences.
pub const LICENSES: &str = "lethe.licenses";

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of Lethe that made it.
    pub lethe: String,
    /// SHA-256 of the guest module that it is made from.
    pub guest_sha256: String,
    /// `fast` or `reproducible`.
    pub numerics: String,
    /// Whether it needs a host with relaxed SIMD.
    pub relaxed_simd: bool,
    /// Which operators its guest has.
    pub operator_set: OperatorSet,
    /// Its models.
    pub models: Vec<BundledModel>,
}

/// A model in a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundledModel {
    /// What it takes and gives, and the name that requests use.
    #[serde(flatten)]
    pub info: ModelInfo,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// Bytes of the ONNX file.
    pub bytes: u64,
    /// Files of weights beside it.
    pub files: Vec<BundledFile>,
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of the operator sets that it imports.
    pub opsets: Vec<Opset>,
    /// The tool that wrote it, with its version.
    pub producer: String,
}

/// A file of weights beside a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundledFile {
    /// Its path in the model's folder.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// An operator set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opset {
    /// Its domain.
    pub domain: String,
    /// Its version.
    pub version: i64,
}

/// Appends both sections to a component.
pub(super) fn append(
    component: &mut Vec<u8>,
    models: &[ModelSource],
    infos: &[ModelInfo],
    options: &BundleOptions,
) -> Result<(), BundleError> {
    let failed = |error: &dyn std::fmt::Display| BundleError::Component {
        reason: error.to_string(),
    };
    let mut bundled = Vec::with_capacity(models.len());
    let mut licenses = format!(
        "Lethe {} is licensed under MIT or Apache-2.0, at your choice.\n\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        include_str!("../../../LICENSE-MIT"),
        include_str!("../../../LICENSE-APACHE"),
    );
    for (source, info) in models.iter().zip(infos) {
        let outline = source.model.outline().map_err(|error| failed(&error))?;
        let model = onnx::read_model(outline).map_err(|error| failed(&error))?;
        licenses.push_str(&license_of(&source.name, &model));
        bundled.push(describe(source, info, &model).map_err(|error| failed(&error))?);
    }
    let provenance = Provenance {
        lethe: env!("CARGO_PKG_VERSION").into(),
        guest_sha256: hex::encode(options.guest().guest().hash()),
        numerics: match options.numerics {
            Numerics::Fast => "fast".into(),
            Numerics::Reproducible => "reproducible".into(),
        },
        relaxed_simd: options.relaxed_simd,
        operator_set: options.operators,
        models: bundled,
    };
    let provenance = serde_json::to_vec(&provenance).map_err(|error| failed(&error))?;
    for (name, data) in [
        (PROVENANCE, &provenance[..]),
        (LICENSES, licenses.as_bytes()),
    ] {
        let (name, data) = (name.into(), data.into());
        CustomSection { name, data }.append_to_component(component);
    }
    Ok(())
}

fn describe(
    source: &ModelSource,
    info: &ModelInfo,
    model: &proto::Model,
) -> io::Result<BundledModel> {
    let file = |(path, content): &(String, Content)| {
        Ok(BundledFile {
            path: path.clone(),
            sha256: content.sha256()?,
            bytes: content.len(),
        })
    };
    let opset = |opset: &proto::OperatorSetId| Opset {
        domain: match opset.domain.as_deref() {
            None | Some("") => "ai.onnx".into(),
            Some(domain) => domain.into(),
        },
        version: opset.version.unwrap_or_default(),
    };
    let producer = [&model.producer_name, &model.producer_version];
    let producer: Vec<&str> = producer.into_iter().flatten().map(String::as_str).collect();
    Ok(BundledModel {
        info: info.clone(),
        sha256: source.model.sha256()?,
        bytes: source.model.len(),
        files: source.files.iter().map(file).collect::<io::Result<_>>()?,
        ir_version: model.ir_version.unwrap_or_default(),
        opsets: model.opset_import.iter().map(opset).collect(),
        producer: producer.join(" ").trim().into(),
    })
}

/// What a model's metadata say of its licence.
fn license_of(name: &str, model: &proto::Model) -> String {
    let about_license = |entry: &&proto::StringStringEntry| {
        let key = entry
            .key
            .as_deref()
            .unwrap_or_default()
            .to_ascii_lowercase();
        key.contains("license") || key.contains("licence")
    };
    let entries = model.metadata_props.iter().filter(about_license);
    let lines: Vec<String> = entries
        .filter_map(|entry| {
            Some(format!(
                "{}: {}\n",
                entry.key.as_ref()?,
                entry.value.as_ref()?
            ))
        })
        .collect();
    match lines.is_empty() {
        true => format!("\nModel {name:?}: its metadata name no licence.\n"),
        false => format!("\nModel {name:?}:\n{}", lines.concat()),
    }
}

/// Reads what a bundle says of itself: where it comes from, and its licences.
///
/// # Errors
/// When the bytes are no bundle.
pub fn read(component: &[u8]) -> Result<(Provenance, String), BundleError> {
    let none = |reason: String| BundleError::NoBundle { reason };
    let (mut depth, mut is_component) = (0usize, false);
    let (mut provenance, mut licenses) = (None, String::new());
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| none(error.to_string()))? {
            Payload::Version { encoding, .. } if depth == 0 => {
                is_component = encoding == Encoding::Component;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 => match section.name() {
                PROVENANCE => {
                    let read = serde_json::from_slice(section.data());
                    provenance = Some(read.map_err(|e| none(format!("{PROVENANCE}: {e}")))?);
                }
                LICENSES => licenses = String::from_utf8_lossy(section.data()).into_owned(),
                _ => {}
            },
            _ => {}
        }
    }
    match (provenance, is_component) {
        (Some(provenance), true) => Ok((provenance, licenses)),
        (_, true) => Err(none(format!("it has no section {PROVENANCE}"))),
        (_, false) => Err(none("it is a module, not a component".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{Component, Module, ModuleSection};

    fn provenance() -> Provenance {
        Provenance {
            lethe: "0.1.0".into(),
            guest_sha256: "ab".into(),
            numerics: "fast".into(),
            relaxed_simd: false,
            operator_set: OperatorSet::All,
            models: Vec::new(),
        }
    }

    fn section(name: &'static str, data: &[u8]) -> CustomSection<'static> {
        CustomSection {
            name: name.into(),
            data: data.to_vec().into(),
        }
    }

    #[test]
    fn only_the_components_own_sections_count() {
        let json = serde_json::to_vec(&provenance()).unwrap();
        let mut inner = Module::new();
        inner.section(&section(PROVENANCE, &json));
        let mut component = Component::new();
        component.section(&ModuleSection(&inner));
        let mut bytes = component.finish();
        assert!(read(&bytes).unwrap_err().to_string().contains("no section"));
        section(PROVENANCE, &json).append_to_component(&mut bytes);
        section(LICENSES, b"MIT").append_to_component(&mut bytes);
        assert_eq!(read(&bytes).unwrap(), (provenance(), "MIT".into()));
        // A module is none, whatever it says.
        assert!(read(&inner.finish()).is_err());
    }

    #[test]
    fn what_is_no_bundle_is_an_error() {
        let mut bad_json = Component::new().finish();
        section(PROVENANCE, b"{").append_to_component(&mut bad_json);
        let mut good = Component::new().finish();
        let json = serde_json::to_vec(&provenance()).unwrap();
        section(PROVENANCE, &json).append_to_component(&mut good);
        assert!(read(&good).is_ok());
        let cases: [&[u8]; 4] = [b"", b"\0asm", &bad_json, &good[..good.len() - 1]];
        for bytes in cases {
            let error = read(bytes).unwrap_err();
            assert_eq!(error.code(), "LETHE-BUNDLE", "{error}");
        }
    }

    #[test]
    fn a_models_licence_is_found_in_its_metadata() {
        let entry = |key: &str, value: &str| proto::StringStringEntry {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        let mut model = proto::Model {
            metadata_props: vec![entry("author", "A"), entry("License", "MIT")],
            ..Default::default()
        };
        assert_eq!(license_of("m", &model), "\nModel \"m\":\nLicense: MIT\n");
        model.metadata_props.pop();
        assert!(license_of("m", &model).contains("no licence"));
    }
}
