//! Builds the guest (`wasi-server`) for wasm32 and hands it to the host as `LETHE_GUEST`.
//!
//! The guest is built by a second cargo with a target folder of its own (`target/guest`), so that
//! neither waits for the other's lock. A debug host gets a guest without whole-program passes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the guest is made of, relative to the workspace.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "engine/Cargo.toml",
    "engine/src",
    "wasi-server/Cargo.toml",
    "wasi-server/src",
    "wasi-server/wit",
];

/// Methods of the Open Inference Protocol over gRPC, with their messages.
const INFERENCE_METHODS: &[(&str, &str, &str, &str)] = &[
    (
        "server_live",
        "ServerLive",
        "ServerLiveRequest",
        "ServerLiveResponse",
    ),
    (
        "server_ready",
        "ServerReady",
        "ServerReadyRequest",
        "ServerReadyResponse",
    ),
    (
        "model_ready",
        "ModelReady",
        "ModelRequest",
        "ModelReadyResponse",
    ),
    (
        "server_metadata",
        "ServerMetadata",
        "ServerMetadataRequest",
        "ServerMetadataResponse",
    ),
    (
        "model_metadata",
        "ModelMetadata",
        "ModelRequest",
        "ModelMetadataResponse",
    ),
    (
        "model_infer",
        "ModelInfer",
        "ModelInferRequest",
        "ModelInferResponse",
    ),
    (
        "model_stream_infer",
        "ModelStreamInfer",
        "ModelInferRequest",
        "ModelStreamInferResponse",
    ),
    (
        "model_config",
        "ModelConfig",
        "ModelRequest",
        "ModelConfigResponse",
    ),
    (
        "repository_index",
        "RepositoryIndex",
        "RepositoryIndexRequest",
        "RepositoryIndexResponse",
    ),
    (
        "repository_model_load",
        "RepositoryModelLoad",
        "RepositoryModelRequest",
        "RepositoryModelResponse",
    ),
    (
        "repository_model_unload",
        "RepositoryModelUnload",
        "RepositoryModelRequest",
        "RepositoryModelResponse",
    ),
];

/// Writes the gRPC service into `OUT_DIR`; its messages are `serve/grpc/messages.rs`.
fn generate_inference_service() {
    use tonic_build::manual::{Builder, Method, Service};
    let mut service = Service::builder()
        .name("GRPCInferenceService")
        .package("inference");
    for (name, route, input, output) in INFERENCE_METHODS {
        let mut method = Method::builder()
            .name(*name)
            .route_name(*route)
            .input_type(format!("super::super::messages::{input}"))
            .output_type(format!("super::super::messages::{output}"))
            .codec_path("tonic_prost::ProstCodec");
        if name.contains("stream") {
            method = method.client_streaming().server_streaming();
        }
        service = service.method(method.build());
    }
    Builder::new()
        .build_client(false)
        .build_transport(false)
        .compile(&[service.build()]);
}

fn main() {
    generate_inference_service();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate has a parent");
    for source in SOURCES {
        println!(
            "cargo:rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let profile = match env::var("PROFILE").as_deref() {
        Ok("release") => "wasm",
        _ => "wasm-dev",
    };
    let guest = build_guest(workspace, &target_folder(&out), profile);
    let copy = out.join("guest.wasm");
    fs::copy(&guest, &copy).unwrap_or_else(|e| panic!("cannot copy {}: {e}", guest.display()));
    println!("cargo:rustc-env=LETHE_GUEST={}", copy.display());
}

/// `target/guest` for an `OUT_DIR` of `target/…/build/lethe-host-…/out`.
fn target_folder(out: &Path) -> PathBuf {
    let build = out.ancestors().find(|path| path.ends_with("build"));
    let target = build
        .and_then(Path::parent)
        .and_then(Path::parent)
        .unwrap_or(out);
    target.join("guest")
}

fn build_guest(workspace: &Path, target: &Path, profile: &str) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    // What the outer cargo was told (its target, flags, wrappers such as clippy) is not for the
    // guest; where packages come from is.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let about_sources = [
            "CARGO_HOME",
            "CARGO_HTTP",
            "CARGO_NET",
            "CARGO_REGISTR",
            "CARGO_SOURCE",
        ];
        let cargos =
            name.starts_with("CARGO") && !about_sources.iter().any(|s| name.starts_with(s));
        if cargos || ["RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC", "RUSTDOC"].contains(&&*name)
        {
            cargo.env_remove(&*name);
        }
    }
    // Messages of panics name source files: the same names wherever the guest is built.
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    flags.push(format!("--remap-path-prefix={}=lethe", workspace.display()));
    if let Some(home) = env::var_os("CARGO_HOME") {
        flags.push(format!(
            "--remap-path-prefix={}=cargo",
            Path::new(&home).display()
        ));
    }
    cargo
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([
            "rustc",
            "--quiet",
            "--package=lethe-server",
            "--lib",
            "--crate-type=cdylib",
        ])
        .args([
            "--target=wasm32-unknown-unknown",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target);
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("cannot start cargo: {error}"));
    assert!(
        status.success(),
        "the guest did not build: {status}; is the target wasm32-unknown-unknown installed?"
    );
    target
        .join("wasm32-unknown-unknown")
        .join(profile)
        .join("lethe_server.wasm")
}
