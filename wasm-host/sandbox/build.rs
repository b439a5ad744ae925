//! Builds the guest (`wasi-server`) for wasm32 and hands it to the host as `LETHE_GUEST`.
//!
//! The guest is built by a second cargo with a target folder of its own (`target/guest`), so that
//! neither waits for the other's lock. A debug host gets a guest without whole-program passes.
//!
//! With the feature `relaxed-guest` there is a second guest, built with relaxed SIMD, as
//! `LETHE_GUEST_RELAXED`: for bundles that ask for it, and left out elsewhere since it takes as long
//! again to build.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

fn main() {
    // As it is now, not as it was when this program was compiled: a folder may have moved.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.ancestors().nth(2).expect("it lies in `wasm-host`");
    for manifest in ["Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&workspace.join(manifest));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let profile = match env::var("PROFILE").as_deref() {
        Ok("release") => "wasm",
        _ => "wasm-dev",
    };
    let build = |folder: &str, features: &str, variable: &str| {
        let target = target_folder(&out).join(folder);
        let guest = build_guest(workspace, &target, profile, features);
        for source in sources(&guest) {
            rerun_if_changed(&source);
        }
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

/// What the guest was made of, crate by crate: its compiler wrote that down. And the crates' manifests.
fn sources(guest: &Path) -> Vec<PathBuf> {
    let list = guest.with_extension("d");
    let text =
        fs::read_to_string(&list).unwrap_or_else(|e| panic!("cannot read {}: {e}", list.display()));
    let (_, names) = text.split_once(": ").expect("`guest: source source …`");
    // A space in a name has a backslash before it.
    let names = names.trim_end().replace("\\ ", "\0");
    let mut sources: Vec<PathBuf> = names
        .split(' ')
        .map(|name| PathBuf::from(name.replace('\0', " ")))
        .collect();
    let manifests: BTreeSet<PathBuf> = sources
        .iter()
        .filter_map(|source| {
            let mut manifests = source.ancestors().map(|folder| folder.join("Cargo.toml"));
            manifests.find(|manifest| manifest.is_file())
        })
        .collect();
    sources.extend(manifests);
    sources
}

fn rerun_if_changed(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
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
