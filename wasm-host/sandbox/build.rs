//! Builds the guest (`wasi-server`) for wasm32 and hands it to the host as `LETHE_GUEST`.
//!
//! The guest is built by a second cargo with a target folder of its own (`target/guest`), so that
//! neither waits for the other's lock. A debug host gets a guest without whole-program passes.
//!
//! With the feature `relaxed-guest` there is a second guest, built with relaxed SIMD, as
//! `LETHE_GUEST_RELAXED`: for bundles that ask for it, and left out elsewhere since it takes as long
//! again to build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

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

fn main() {
    // As it is now, not as it was when this program was compiled: a folder may have moved.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.ancestors().nth(2).expect("it lies in `wasm-host`");
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
    let build = |folder: &str, features: &str, variable: &str| {
        let target = target_folder(&out).join(folder);
        let guest = build_guest(workspace, &target, profile, features);
        let copy = out.join(format!("{folder}.wasm"));
        fs::copy(&guest, &copy).unwrap_or_else(|e| panic!("cannot copy {}: {e}", guest.display()));
        println!("cargo:rustc-env={variable}={}", copy.display());
        // So that a program that has the guest's code and images need not read the guest itself.
        let module = fs::read(&copy).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
        let hash = out.join(format!("{folder}.sha256"));
        fs::write(&hash, Sha256::digest(&module))
            .unwrap_or_else(|e| panic!("{}: {e}", hash.display()));
        println!("cargo:rustc-env={variable}_SHA256={}", hash.display());
    };
    build("guest", "+simd128", "LETHE_GUEST");
    if env::var_os("CARGO_FEATURE_RELAXED_GUEST").is_some() {
        build(
            "guest-relaxed",
            "+simd128,+relaxed-simd",
            "LETHE_GUEST_RELAXED",
        );
    }
}

/// `target` for an `OUT_DIR` of `target/…/build/lethe-host-…/out`.
fn target_folder(out: &Path) -> PathBuf {
    let build = out.ancestors().find(|path| path.ends_with("build"));
    let target = build.and_then(Path::parent).and_then(Path::parent);
    target.unwrap_or(out).to_path_buf()
}

fn build_guest(workspace: &Path, target: &Path, profile: &str, features: &str) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    // What the outer cargo was told (its target, flags, wrappers such as clippy) is not for the
    // guest; where packages come from is, and whether anything will be built again.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let is_for_all = [
            "CARGO_HOME",
            "CARGO_HTTP",
            "CARGO_INCREMENTAL",
            "CARGO_NET",
            "CARGO_REGISTR",
            "CARGO_SOURCE",
        ];
        let cargos = name.starts_with("CARGO") && !is_for_all.iter().any(|s| name.starts_with(s));
        if cargos || ["RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC", "RUSTDOC"].contains(&&*name)
        {
            cargo.env_remove(&*name);
        }
    }
    let mut flags = vec![format!("-Ctarget-feature={features}")];
    // Messages of panics name source files: the same names wherever the guest is built.
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
        .arg(target)
        // What code and data refer to: a bundle leaves out what its models do not reach.
        .args(["--", "-Clink-arg=--emit-relocs", "-Cstrip=symbols"]);
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
