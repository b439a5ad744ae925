//! A model file on its way into WebAssembly's memory.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::Failure;

/// A model file that arrives in pieces, each copied once from the network's buffer to where the
/// engine reads its weights.
#[wasm_bindgen]
#[derive(Default)]
pub struct ModelBytes(Vec<u8>);

#[wasm_bindgen]
impl ModelBytes {
    /// Makes room for `len_bytes`, the length the sender announced; 0 where it did not. It is a
    /// hint: more or less may come.
    ///
    /// # Errors
    /// `LETHE-BUDGET` where there is no memory for it.
    #[wasm_bindgen(constructor)]
    pub fn new(len_bytes: f64) -> Result<ModelBytes, Failure> {
        let mut bytes = Vec::new();
        // The cast saturates, so that an absurd length fails to be reserved.
        let len = len_bytes as usize;
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Failure::memory(len))?;
        Ok(Self(bytes))
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// `LETHE-BUDGET` where there is no memory for it.
    pub fn push(&mut self, piece: &Uint8Array) -> Result<(), Failure> {
        let (start, len) = (self.0.len(), piece.length() as usize);
        self.0.try_reserve(len).map_err(|_| Failure::memory(len))?;
        self.0.resize(start + len, 0);
        piece.copy_to(&mut self.0[start..]);
        Ok(())
    }

    /// A copy of everything so far, for hashing and caching.
    #[wasm_bindgen(js_name = copy)]
    pub fn to_js(&self) -> Uint8Array {
        Uint8Array::from(&self.0[..])
    }
}

impl ModelBytes {
    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        self.0.into()
    }
}
