//! A model and the files beside it on their way into WebAssembly's memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use js_sys::Uint8Array;
use lethe_engine::onnx::{external_data, proto, read_model};
use lethe_engine::tensor::SharedBytes;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::Failure;

/// What is asked for where a file turns out longer than was announced: memory that a vector has grown out
/// of is lost to WebAssembly, so that there is another one instead.
const MORE_BYTES: usize = 16 << 20;

/// The longest piece: vectors are no longer than half of what a pointer reaches.
const LONGEST: usize = i32::MAX as usize;

/// A file that arrives in pieces, each copied once from the network's buffer to where the engine
/// reads its weights.
#[wasm_bindgen]
#[derive(Default)]
pub struct ModelBytes(Vec<Vec<u8>>);

#[wasm_bindgen]
impl ModelBytes {
    /// Makes room for `len_bytes`, the length the sender announced; 0 where it did not. It is a
    /// hint: more or less may come.
    ///
    /// # Errors
    /// `LETHE-BUDGET` where there is no memory for it.
    #[wasm_bindgen(constructor)]
    pub fn new(len_bytes: f64) -> Result<ModelBytes, Failure> {
        let mut bytes = Self::default();
        // The cast saturates, so that an absurd length fails to be reserved.
        let mut len = len_bytes as usize;
        while len > 0 {
            let next = len.min(LONGEST);
            bytes.more_room(next)?;
            len -= next;
        }
        Ok(bytes)
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// `LETHE-BUDGET` where there is no memory for it.
    pub fn push(&mut self, piece: &Uint8Array) -> Result<(), Failure> {
        let (len, mut done) = (piece.length() as usize, 0);
        while done < len {
            let room = |part: &Vec<u8>| part.capacity() - part.len();
            let Some(part) = self.0.iter_mut().find(|part| room(part) > 0) else {
                self.more_room((len - done).max(MORE_BYTES))?;
                continue;
            };
            let (start, next) = (part.len(), room(part).min(len - done));
            part.resize(start + next, 0);
            let from = piece.subarray(done as u32, (done + next) as u32);
            from.copy_to(&mut part[start..]);
            done += next;
        }
        Ok(())
    }

    /// A copy of everything so far, for hashing and caching.
    #[wasm_bindgen(js_name = copy)]
    pub fn to_js(&self) -> Uint8Array {
        let copy = Uint8Array::new_with_length(self.len() as u32);
        let mut start = 0;
        for part in &self.0 {
            let place = copy.subarray(start, start + part.len() as u32);
            place.copy_from(part);
            start += part.len() as u32;
        }
        copy
    }

    /// Reads the file. Its weights stay where they are.
    ///
    /// # Errors
    /// Where it is no model (the engine's code), and `LETHE-BUDGET` where it came in several parts and there
    /// is no memory to put it together.
    pub fn decode(mut self) -> Result<DecodedModel, Failure> {
        self.join()?;
        let whole = self.0.pop().unwrap_or_default();
        Ok(DecodedModel(read_model(whole.into())?))
    }
}

/// A model's file, read.
#[wasm_bindgen]
pub struct DecodedModel(pub(crate) proto::Model);

#[wasm_bindgen]
impl DecodedModel {
    /// The files beside it that it has weights in, each once.
    #[wasm_bindgen(js_name = externalLocations)]
    pub fn external_locations(&mut self) -> Vec<String> {
        let locations = external_data::locations(&mut self.0);
        locations.into_iter().collect()
    }
}

impl ModelBytes {
    fn more_room(&mut self, len: usize) -> Result<(), Failure> {
        let mut part = Vec::new();
        part.try_reserve_exact(len)
            .map_err(|_| Failure::memory(len))?;
        self.0.push(part);
        Ok(())
    }

    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Makes one part of several.
    fn join(&mut self) -> Result<(), Failure> {
        self.0.retain(|part| !part.is_empty());
        if self.0.len() > 1 {
            let mut whole = Vec::new();
            let len = self.len();
            whole
                .try_reserve_exact(len)
                .map_err(|_| Failure::memory(len))?;
            self.0.drain(..).for_each(|part| whole.extend(part));
            self.0.push(whole);
        }
        Ok(())
    }
}

/// The files beside a model, by their names in it.
#[wasm_bindgen]
#[derive(Default)]
pub struct ExternalFiles(BTreeMap<String, Vec<Bytes>>);

#[wasm_bindgen]
impl ExternalFiles {
    /// None so far.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts in a file.
    pub fn add(&mut self, name: String, content: ModelBytes) {
        let parts = content.0.into_iter().map(Bytes::from).collect();
        self.0.insert(name, parts);
    }
}

impl external_data::ExternalData for ExternalFiles {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        let whole = self.read(location, 0, None)?;
        Ok(whole.into())
    }

    fn read(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<SharedBytes, String> {
        let parts = self
            .0
            .get(location)
            .ok_or_else(|| format!("{location:?} was not given"))?;
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let wanted = external_data::piece_of(location, len, offset, length)?;
        let mut found = Vec::new();
        let mut start = 0;
        for part in parts {
            let end = start + part.len() as u64;
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to {
                // Both are within the part, which is in memory.
                let place = |at: u64| usize::try_from(at - start).map_err(|e| e.to_string());
                found.push(part.slice(place(from)?..place(to)?));
            }
            start = end;
        }
        // A tensor that lies across two parts is put together.
        match found.len() {
            0 | 1 => Ok(found.pop().unwrap_or_default().into()),
            _ => {
                let mut whole = Vec::new();
                let len = found.iter().map(Bytes::len).sum();
                whole
                    .try_reserve_exact(len)
                    .map_err(|_| format!("no memory for {len} more bytes"))?;
                found.iter().for_each(|part| whole.extend_from_slice(part));
                Ok(Bytes::from(whole).into())
            }
        }
    }
}
