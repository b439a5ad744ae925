//! The manifests for Spin and wasmCloud, whose programs are not here: every field must be one that
//! their references name, and the ones that they require must be there. Sources:
//! <https://spinframework.dev/manifest-reference>, <https://docs.rs/crate/wadm/latest/source/oam.schema.json>.

use std::collections::BTreeMap;

use crate::server::root;

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy/edge").join(name)).unwrap()
}

#[test]
fn the_manifest_for_spin_has_the_documented_fields() {
    let manifest: toml::Table = toml::from_str(&read("spin.toml")).unwrap();
    let keys = |table: &toml::Value| -> Vec<String> {
        table.as_table().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        manifest.keys().collect::<Vec<_>>(),
        [
            "application",
            "component",
            "spin_manifest_version",
            "trigger"
        ]
    );
    assert_eq!(manifest["spin_manifest_version"].as_integer(), Some(2));
    assert_eq!(
        keys(&manifest["application"]),
        ["description", "name", "version"]
    );
    let trigger = &manifest["trigger"]["http"][0];
    assert_eq!(keys(trigger), ["component", "route"]);
    assert_eq!(trigger["route"].as_str(), Some("/..."));
    let component = &manifest["component"][trigger["component"].as_str().unwrap()];
    assert_eq!(keys(component), ["allowed_outbound_hosts", "source"]);
    // The bundle reaches out to nobody.
    assert_eq!(
        component["allowed_outbound_hosts"].as_array().map(Vec::len),
        Some(0)
    );
}

/// The scalars of a YAML document in block style, by path; items of lists by number. Enough for the
/// manifest, and a line that it does not know ends the test.
fn scalars(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // Indentation, name, and how many items it has had.
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut items: BTreeMap<String, usize> = BTreeMap::new();
    let joined = |path: &[(usize, String)]| {
        path.iter()
            .map(|(_, name)| name.as_str())
            .collect::<Vec<_>>()
            .join(".")
    };
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        let mut indent = line.len() - line.trim_start().len();
        let mut rest = line.trim();
        path.retain(|(depth, _)| *depth < indent);
        if let Some(item) = rest.strip_prefix("- ") {
            let count = items.entry(joined(&path)).or_default();
            path.push((indent, count.to_string()));
            *count += 1;
            (indent, rest) = (indent + 2, item);
        }
        let (key, value) = rest.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
        path.push((indent, key.to_owned()));
        if !value.trim().is_empty() {
            found.insert(joined(&path), value.trim().to_owned());
        }
    }
    found
}

#[test]
fn the_manifest_for_wasmcloud_has_the_documented_fields() {
    let found = scalars(&read("wadm.yaml"));
    let expected = [
        ("apiVersion", "core.oam.dev/v1beta1"),
        ("kind", "Application"),
        (
            "metadata.annotations.description",
            "An ONNX model as a WASI HTTP component, made by lethe bundle",
        ),
        ("metadata.name", "lethe-edge"),
        ("spec.components.0.name", "model"),
        ("spec.components.0.properties.image", "file://./model.wasm"),
        ("spec.components.0.traits.0.properties.instances", "4"),
        ("spec.components.0.traits.0.type", "spreadscaler"),
        ("spec.components.0.type", "component"),
        ("spec.components.1.name", "httpserver"),
        (
            "spec.components.1.properties.image",
            "ghcr.io/wasmcloud/http-server:0.27.0",
        ),
        (
            "spec.components.1.traits.0.properties.interfaces",
            "[incoming-handler]",
        ),
        ("spec.components.1.traits.0.properties.namespace", "wasi"),
        ("spec.components.1.traits.0.properties.package", "http"),
        (
            "spec.components.1.traits.0.properties.source.config.0.name",
            "default-http",
        ),
        (
            "spec.components.1.traits.0.properties.source.config.0.properties.address",
            "127.0.0.1:8080",
        ),
        ("spec.components.1.traits.0.properties.target.name", "model"),
        ("spec.components.1.traits.0.type", "link"),
        ("spec.components.1.type", "capability"),
    ];
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(path, value)| (&**path, &**value))
        .collect();
    assert_eq!(found, expected);
}
