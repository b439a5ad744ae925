//! numpy's archives: zip files of `.npy` files.

use lethe_engine::Tensor;
use std::io::{Cursor, Read};
use zip::ZipArchive;

use super::npy;

/// Bytes up to which an entry is unpacked.
const LARGEST: u64 = 4 << 30;

/// The entry named `name`, or the only one there is.
pub(super) fn decode(name: &str, bytes: Vec<u8>) -> Result<Tensor, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    let wanted = format!("{name}.npy");
    let index = match archive.index_for_name(&wanted) {
        Some(index) => index,
        None if archive.len() == 1 => 0,
        None => {
            let names: Vec<_> = archive.file_names().flatten().collect();
            return Err(format!("no {wanted:?} in it, only {}", names.join(", ")));
        }
    };
    let entry = archive.by_index(index).map_err(|e| e.to_string())?;
    let mut content = Vec::new();
    let read = entry.take(LARGEST).read_to_end(&mut content);
    read.map_err(|e| e.to_string())?;
    npy::decode(&content)
}
