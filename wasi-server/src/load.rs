//! Loading the model that an image is to hold.

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use lethe_engine::onnx::{self, external_data, external_data::ExternalData};
use lethe_engine::session::zero_inputs;
use lethe_engine::tensor::Buffer;
use lethe_engine::{Numerics, Session, SessionOptions, Value};

use crate::guest_heap::GuestHeap;
use crate::handler::Model;
use crate::message::Load;
use crate::native_kernels;
use crate::problem::Problem;
use crate::together;
use crate::wire::{Reader, WireError, Writer};

#[global_allocator]
pub(crate) static HEAP: GuestHeap = GuestHeap::new();

/// Free memory that an image has, so that instances need not grow theirs for a request. It is zero,
/// hence costs nothing until it is used.
const HEADROOM_BYTES: usize = 4 << 20;

/// The files that came with the model, by their paths: each weight may name one.
struct Files(HashMap<String, Bytes>);

impl ExternalData for Files {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        let file = self.0.get(location);
        file.cloned()
            .ok_or_else(|| format!("{location:?} did not come with the model"))
    }
}

/// Parses, optimises and packs the model, then runs it once so that the image holds the layout for
/// these shapes and memory to run in; what the run left in that memory is erased, and so is all
/// that loading allocated and does not need any more: an image stores what is not zero.
///
/// # Errors
/// When the model cannot be loaded, or does not run on the inputs that were given to warm it up.
pub(crate) fn load(message: Bytes) -> Result<Model, Problem> {
    // Before all else: next to the program's own data, whose pages a request writes too.
    HEAP.set_aside();
    let _wiping = HEAP.begin_loading();
    let load = Load::decode(message)?;
    if let Some((rows, columns)) = load.options.host_tile {
        native_kernels::install((rows as usize, columns as usize));
    }
    let numerics = match load.options.reproducible {
        true => Numerics::Reproducible,
        false => Numerics::Fast,
    };
    // Slices of the message would keep all of it.
    let mut model = onnx::read_model(load.model)?;
    external_data::take_in(&mut model, &Files(load.files.into_iter().collect()))?;
    let warm_up = copied(&load.warm_up)?;
    let name = load.name;
    drop(load.warm_up);

    let options = SessionOptions {
        numerics,
        rewrite: !load.options.as_written,
        quantize: load.options.quantize,
        ..SessionOptions::default()
    };
    let session = Session::from_model(&model, &options)?;
    drop(model);
    let model = Model::new(name, session);
    let most = load.options.most_together as usize;
    if !warm_up.is_empty() {
        together::warm_up(&model, &warm_up, most);
        model.run(&warm_up, None)?;
    } else if let Some(zeros) = zero_inputs(model.session().inputs(), &|_, _, _| None) {
        together::warm_up(&model, &zeros, most);
        // Not every model takes sizes of 1 and zeros; one that does not is warm later.
        drop(model.run(&zeros, None));
    }
    model.session().wipe();
    drop(black_box(Buffer::zeroed(HEADROOM_BYTES)));
    Ok(model)
}

/// The same values in memory of their own.
fn copied(values: &[(String, Value)]) -> Result<Vec<(String, Value)>, WireError> {
    let mut writer = Writer::new();
    writer.named_values(values.iter().map(|(name, value)| (name.as_str(), value)));
    Reader::new(writer.finish().into()).named_values()
}
