//! The guest: built once, for WASI 0.2.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, LazyLock};

use lethe_host::settings::RunSettings;
use lethe_host::wasi_nn::command::Command;
use lethe_host::wasi_nn::models::Models;

pub(crate) fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    folder.expect("the crate is in a folder of the repository")
}

pub(crate) fn digits() -> PathBuf {
    root().join("models/digits/model.onnx")
}

/// The component's file. It is built beside the server's guest, with which it shares what generates
/// its bindings.
pub(crate) fn path() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("guest");
        let mut cargo = process::Command::new(env!("CARGO"));
        // What the outer cargo was told is not for the guest.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_", "CARGO_TARGET_"]
                .iter()
                .any(|start| name.starts_with(start))
                || name == "RUSTFLAGS"
            {
                cargo.env_remove(&*name);
            }
        }
        let status = cargo
            .current_dir(root())
            .args([
                "build",
                "--quiet",
                "--package=lethe-nn-guest",
                "--profile=wasm-dev",
            ])
            .args(["--target=wasm32-wasip2", "--target-dir"])
            .arg(&target)
            .status()
            .expect("cargo starts");
        assert!(
            status.success(),
            "the guest did not build: is the target wasm32-wasip2 installed?"
        );
        target.join("wasm32-wasip2/wasm-dev/lethe-nn-guest.wasm")
    });
    &PATH
}

/// The component, compiled.
pub(crate) fn command() -> &'static Command {
    static COMMAND: LazyLock<Command> =
        LazyLock::new(|| Command::new(&std::fs::read(path()).unwrap()).unwrap());
    &COMMAND
}

/// Most bytes of a model's run in these tests.
const RUN_BYTES: u64 = 64 << 20;

/// The models `digits` and `fourfold`, in this process.
pub(crate) fn models() -> &'static Arc<Models> {
    static MODELS: LazyLock<Arc<Models>> = LazyLock::new(|| {
        #[derive(Debug, clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            settings: RunSettings,
        }
        let Arguments { settings } = clap::Parser::parse_from(["lethe", "--threads", "1"]);
        let fourfold = file("fourfold.onnx", &crate::small::fourfold());
        let files = vec![("digits".into(), digits()), ("fourfold".into(), fourfold)];
        Arc::new(Models::new(files, None, &settings, RUN_BYTES).unwrap())
    });
    &MODELS
}

/// A file for these tests.
pub(crate) fn file(name: &str, content: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi-nn");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
