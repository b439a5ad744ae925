//! Loading the model that an image is to hold.

use std::hint::black_box;

use bytes::Bytes;
use lethe_engine::onnx::external_data::ExternalData;
use lethe_engine::session::zero_inputs;
use lethe_engine::tensor::Buffer;
use lethe_engine::{Numerics, Session, SessionOptions};

use crate::handler::Model;
use crate::message::Load;
use crate::native_kernels;
use crate::problem::Problem;

/// Free memory that an image has, so that instances need not grow theirs for a request. It is zero,
/// hence costs nothing until it is used.
const HEADROOM_BYTES: usize = 4 << 20;

/// The files that came with the model.
struct Files(Vec<(String, Bytes)>);

impl ExternalData for Files {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        let file = self.0.iter().find(|(path, _)| path == location);
        file.map(|(_, content)| content.clone())
            .ok_or_else(|| format!("{location:?} did not come with the model"))
    }
}

/// Parses, optimises and packs the model, then runs it once so that the image holds the layout for
/// these shapes and memory to run in; what the run left in that memory is erased.
///
/// # Errors
/// When the model cannot be loaded, or does not run on the inputs that were given to warm it up.
pub(crate) fn load(load: Load) -> Result<Model, Problem> {
    let options = SessionOptions {
        numerics: match load.options.reproducible {
            true => Numerics::Reproducible,
            false => Numerics::Fast,
        },
        files: &Files(load.files),
        ..SessionOptions::default()
    };
    if let Some((rows, columns)) = load.options.host_tile {
        native_kernels::install((rows as usize, columns as usize));
    }
    let session = Session::load(load.model, &options)?;
    let model = Model::new(load.name, session);
    if !load.warm_up.is_empty() {
        model.run(&load.warm_up, None, None)?;
    } else if let Some(zeros) = zero_inputs(model.session().inputs(), &|_, _, _| None) {
        // Not every model takes sizes of 1 and zeros; one that does not is warm later.
        drop(model.run(&zeros, None, None));
    }
    model.session().wipe();
    drop(black_box(Buffer::zeroed(HEADROOM_BYTES)));
    Ok(model)
}
