//! Tests of Lethe as a whole. What the tests share is here: where models are, and how they are
//! loaded and their data sets read.
//!
//! Models that are not part of the repository (see `models/README.md` on where they come from) are
//! looked for in `target/models`; a test that does not find its model says that it is skipped.
#![deny(unsafe_code)]

use bytes::Bytes;
use prost::Message;
use std::path::{Path, PathBuf};

use lethe_engine::onnx::external_data::NoExternalData;
use lethe_engine::onnx::{proto, values};
use lethe_engine::{Level, Numerics, Session, SessionOptions, Tensor, Threads, Value};

/// The repository.
pub fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    folder.expect("the crate is in a folder of the repository")
}

/// The folder of a model in `models` or `target/models`, or `None`, said aloud.
pub fn model_folder(name: &str) -> Option<PathBuf> {
    let places = ["models", "target/models/real", "target/models/open"];
    let folders = places.map(|place| root().join(place).join(name));
    let found = folders
        .into_iter()
        .find(|folder| folder.join("model.onnx").exists());
    if found.is_none() {
        eprintln!("skipped: {name} is not in target/models");
    }
    found
}

/// A model from its folder, loaded for so many threads.
///
/// # Panics
/// When it cannot be read or loaded.
pub fn load(folder: &Path, level: Level, numerics: Numerics, threads: usize) -> Session {
    let model =
        Bytes::from(std::fs::read(folder.join("model.onnx")).expect("the model is readable"));
    let options = SessionOptions {
        level,
        numerics,
        threads: Threads::new(threads).expect("threads can be started"),
        ..SessionOptions::default()
    };
    Session::load(model, &options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

/// The tensors `<prefix><i>.pb` of a data set, in order, with their names.
///
/// # Panics
/// When one is malformed.
pub fn tensors(data_set: &Path, prefix: &str) -> Vec<(String, Tensor)> {
    let file = |i: usize| std::fs::read(data_set.join(format!("{prefix}{i}.pb"))).ok();
    (0..)
        .map_while(file)
        .map(|bytes| {
            let message = proto::Tensor::decode(Bytes::from(bytes)).expect("a tensor");
            let tensor = values::tensor_from_proto(&message, &NoExternalData).expect("a tensor");
            (message.name.unwrap_or_default(), tensor.aligned())
        })
        .collect()
}

/// The inputs of a data set for a session.
pub fn inputs(tensors: &[(String, Tensor)]) -> Vec<(&str, Value)> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), Value::Tensor(tensor.clone())))
        .collect()
}
