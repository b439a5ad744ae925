//! Makes the module of `lethe-web` one that browsers load: `bind MODULE.wasm FOLDER`.
//!
//! As `wasm-bindgen --target web` does, of which this is the library.

use std::path::PathBuf;

use anyhow::{Context, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, folder] = arguments.as_slice() else {
        bail!(
            "expected MODULE.wasm FOLDER, found {} arguments",
            arguments.len()
        );
    };
    Bindgen::new()
        .input_path(module)
        .web(true)?
        .typescript(true)
        .omit_default_module_path(true)
        .out_name("lethe")
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(folder)
        .with_context(|| format!("cannot bind {}", module.display()))
}
