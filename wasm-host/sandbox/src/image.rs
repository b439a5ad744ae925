//! Images: the memory of a guest that has loaded a model, in a file that is mapped.
//!
//! ```text
//! file := "LETHEIMG" blake3[32] header_bytes:u64 header padding piece* (each at a multiple of 4096)
//! header := memory_bytes:u64 count:u32 (address:u64 file_offset:u64 len_bytes:u64)* models:json
//! ```
//!
//! The hash covers everything after itself and is checked when a file is opened, so a cache that
//! was cut short or changed is noticed and made anew. Only pages that are not zero are stored. A
//! file is written under another name and then renamed, so that nobody sees half of one.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use lethe_server::ModelInfo;
use lethe_server::wire::{Reader, WireError, Writer};

use super::slots::HOST_PAGE;
use crate::guest::{Guest, nonzero_runs};
use crate::mapping;

const MAGIC: &[u8; 8] = b"LETHEIMG";
const HASH_BYTES: usize = 32;
/// Where the bytes begin that the hash covers.
const HASHED: usize = MAGIC.len() + HASH_BYTES;
/// Runs shorter than this are not worth looking up.
const LONG_BYTES: usize = 64 << 10;
/// Bytes of a file that are looked at together; whole pages.
const CHUNK_BYTES: usize = 256 << 10;
/// Zero bytes that are stored rather than beginning another piece: every piece is a mapping of its
/// own in every slot.
const JOIN_BYTES: usize = 256 << 10;

/// A piece of an image's memory in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the memory.
    pub address: usize,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its length; whole pages.
    pub len_bytes: usize,
}

impl Piece {
    /// Its runs of pages that are not all zero, given which pages of the file are.
    fn filled(self, is_filled: &[bool]) -> Vec<Piece> {
        let first = self.file_offset as usize / HOST_PAGE;
        let pages = is_filled.get(first..).unwrap_or_default();
        let pages = &pages[..pages.len().min(self.len_bytes / HOST_PAGE)];
        let mut page = 0;
        let runs = pages.chunk_by(|a, b| a == b).filter_map(|run| {
            let begun = page * HOST_PAGE;
            page += run.len();
            run[0].then_some(Piece {
                address: self.address + begun,
                file_offset: self.file_offset + begun as u64,
                len_bytes: run.len() * HOST_PAGE,
            })
        });
        runs.collect()
    }
}

/// Why a file is not an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its content is not an image, or not what was written.
    #[error("{0}")]
    Corrupt(String),
}

impl From<WireError> for ImageError {
    fn from(error: WireError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// A frozen memory.
#[derive(Debug)]
pub struct Image {
    file: File,
    content: Bytes,
    memory_bytes: usize,
    pieces: Vec<Piece>,
    /// The pages of the pieces that are not all zero, in runs.
    filled: Vec<Piece>,
    models: Vec<ModelInfo>,
}

impl Image {
    /// The guest's memory before anything ran, in memory.
    pub fn of_guest(guest: &Guest) -> io::Result<Self> {
        let mut memory = vec![0u8; guest.memory_bytes()];
        for segment in guest.data() {
            memory[segment.address..][..segment.bytes.len()].copy_from_slice(segment.bytes);
        }
        Self::in_memory(&memory, &[])
    }

    /// An image of `memory` without a file on disk.
    pub fn in_memory(memory: &[u8], models: &[ModelInfo]) -> io::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("lethe-image", flags)?);
        write(&mut file, memory, models)?;
        Self::of_file(file).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Writes an image of `memory` to `path`, whole or not at all, and opens it.
    pub fn save(path: &Path, memory: &[u8], models: &[ModelInfo]) -> Result<Self, ImageError> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = File::create(&temporary)
            .and_then(|mut file| write(&mut file, memory, models))
            .and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            // The first error says more than one from tidying up would.
            drop(fs::remove_file(&temporary));
            return Err(error.into());
        }
        Self::open(path)
    }

    /// Opens an image and checks its hash.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::of_file(File::open(path)?)
    }

    fn of_file(mut file: File) -> Result<Self, ImageError> {
        let (hash, is_filled) = look_through(&mut file)?;
        let image = Self::map(file, &is_filled)?;
        if hash != image.content[MAGIC.len()..HASHED] {
            return Err(ImageError::Corrupt(
                "its content does not match its hash".into(),
            ));
        }
        Ok(image)
    }

    /// Maps a file of which it is known which pages are not all zero.
    fn map(file: File, is_filled: &[bool]) -> Result<Self, ImageError> {
        let content = mapping::read_only(&file)?;
        let corrupt = |what: &str| ImageError::Corrupt(what.into());
        if !content.starts_with(MAGIC) || content.len() < HASHED + 8 {
            return Err(corrupt("it does not begin as an image does"));
        }
        let mut header = Reader::new(content.slice(HASHED..));
        let memory_bytes = header.u64("a memory's size")? as usize;
        let count = header.count(24, "a number of pieces")?;
        let mut pieces = Vec::with_capacity(count);
        for _ in 0..count {
            pieces.push(Piece {
                address: header.u64("an address")? as usize,
                file_offset: header.u64("an offset")?,
                len_bytes: header.u64("a length")? as usize,
            });
        }
        let models = header.text("descriptions of models")?;
        let models = serde_json::from_str(&models).map_err(|error| corrupt(&error.to_string()))?;
        let mut end = 0;
        for piece in &pieces {
            let whole_pages = [piece.address, piece.file_offset as usize, piece.len_bytes]
                .iter()
                .all(|n| n.is_multiple_of(HOST_PAGE));
            let in_file = piece.file_offset.checked_add(piece.len_bytes as u64);
            let in_memory = piece.address.checked_add(piece.len_bytes);
            if !whole_pages
                || piece.address < end
                || in_file.is_none_or(|end| end > content.len() as u64)
                || in_memory.is_none_or(|end| end > memory_bytes)
            {
                return Err(corrupt("a piece lies outside"));
            }
            end = piece.address + piece.len_bytes;
        }
        let filled = pieces.iter().flat_map(|piece| piece.filled(is_filled));
        Ok(Self {
            filled: filled.collect(),
            file,
            content,
            memory_bytes,
            pieces,
            models,
        })
    }

    /// Size of the memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.content.len()
    }

    /// The pieces that are not zero, upwards, without overlap.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The runs of pages that are long and none of them zero: what a model's weights look like. Pages
    /// of freed memory can look so as well, since an allocator's notes stay in them.
    pub fn long_runs(&self) -> impl Iterator<Item = Piece> {
        let long = |piece: &&Piece| piece.len_bytes >= LONG_BYTES;
        self.filled.iter().filter(long).copied()
    }

    /// A piece's content.
    pub fn content(&self, piece: Piece) -> &[u8] {
        &self.content[piece.file_offset as usize..][..piece.len_bytes]
    }

    /// The file that holds the pieces.
    pub fn file(&self) -> impl AsFd {
        &self.file
    }

    /// The models that the guest had loaded.
    pub fn models(&self) -> &[ModelInfo] {
        &self.models
    }

    /// Fills `memory` with the image's content from `address` on.
    pub fn restore(&self, mut address: usize, mut memory: &mut [u8]) {
        let first = self
            .filled
            .partition_point(|piece| piece.address + piece.len_bytes <= address);
        for &piece in &self.filled[first..] {
            let zeros = piece.address.saturating_sub(address).min(memory.len());
            let (before, rest) = memory.split_at_mut(zeros);
            before.fill(0);
            address += zeros;
            if rest.is_empty() {
                return;
            }
            let content = &self.content(piece)[address - piece.address..];
            let (now, rest) = rest.split_at_mut(content.len().min(rest.len()));
            now.copy_from_slice(&content[..now.len()]);
            address += now.len();
            memory = rest;
        }
        memory.fill(0);
    }

    /// What is long and lies in one of the [`long_runs`](Self::long_runs).
    pub fn long_run(&self, address: usize, len_bytes: usize) -> Option<&[u8]> {
        if len_bytes < LONG_BYTES {
            return None;
        }
        let next = self
            .filled
            .partition_point(|piece| piece.address <= address);
        let piece = *self.filled.get(next.checked_sub(1)?)?;
        self.content(piece)
            .get(address - piece.address..)?
            .get(..len_bytes)
    }
}

/// The hash of an image's file, and which of its pages are not all zero.
///
/// Read, not mapped: pages of the mapping that were looked at count as this process's memory.
fn look_through(file: &mut File) -> io::Result<(blake3::Hash, Vec<bool>)> {
    let mut hasher = blake3::Hasher::new();
    let mut is_filled = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    file.seek(SeekFrom::Start(0))?;
    loop {
        chunk.clear();
        Read::by_ref(file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)?;
        let hashed = if is_filled.is_empty() { HASHED } else { 0 };
        hasher.update(chunk.get(hashed..).unwrap_or_default());
        let pages = chunk.chunks(HOST_PAGE);
        is_filled.extend(pages.map(|page| page.iter().any(|&byte| byte != 0)));
        if chunk.len() < CHUNK_BYTES {
            return Ok((hasher.finalize(), is_filled));
        }
    }
}

fn write(file: &mut File, memory: &[u8], models: &[ModelInfo]) -> io::Result<()> {
    let runs = nonzero_runs(memory, HOST_PAGE, JOIN_BYTES);
    let models = serde_json::to_string(models)?;
    // Header, with offsets that follow from its own length.
    let header_bytes = HASHED + 8 + 4 + 24 * runs.len() + 4 + models.len();
    let mut file_offset = header_bytes.next_multiple_of(HOST_PAGE);
    let mut header = Writer::new();
    header.u64(memory.len() as u64);
    header.length(runs.len());
    for run in &runs {
        header.u64(run.start as u64);
        header.u64(file_offset as u64);
        header.u64(run.len() as u64);
        file_offset += run.len();
    }
    header.text(&models);
    let mut header = header.finish();
    header.resize(header_bytes.next_multiple_of(HOST_PAGE) - HASHED, 0);
    let pieces = || runs.iter().map(|run| &memory[run.clone()]);
    let mut hash = blake3::Hasher::new();
    hash.update(&header);
    for piece in pieces() {
        hash.update(piece);
    }
    file.write_all(MAGIC)?;
    file.write_all(hash.finalize().as_bytes())?;
    file.write_all(&header)?;
    pieces().try_for_each(|piece| file.write_all(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Vec<u8> {
        let mut memory = vec![0u8; 1 << 20];
        memory[5000] = 1;
        memory[9000] = 2;
        memory[800_000] = 3;
        memory
    }

    fn models() -> [ModelInfo; 1] {
        [ModelInfo {
            name: "m".into(),
            inputs: Vec::new(),
            optional_inputs: Vec::new(),
            outputs: Vec::new(),
            quantized: false,
        }]
    }

    #[test]
    fn restores_any_range_of_the_memory() {
        let memory = memory();
        let image = Image::in_memory(&memory, &models()).unwrap();
        assert_eq!((image.memory_bytes(), image.pieces().len()), (1 << 20, 2));
        assert_eq!(image.models(), models());
        for range in [
            0..4096,
            4096..16384,
            0..1 << 20,
            8192..800_768,
            900_000..1 << 20,
        ] {
            let mut found = vec![0xff; range.len()];
            image.restore(range.start, &mut found);
            assert!(found == memory[range.clone()], "{range:?}");
        }
    }

    #[test]
    fn long_runs_are_of_filled_pages() {
        let mut memory = vec![0u8; 1 << 20];
        memory[..20 * HOST_PAGE].fill(1);
        memory[30 * HOST_PAGE..70 * HOST_PAGE].fill(2);
        let image = Image::in_memory(&memory, &models()).unwrap();
        let runs = image.long_runs().map(|run| (run.address, run.len_bytes));
        let pages = |n: usize| n * HOST_PAGE;
        assert!(runs.eq([(0, pages(20)), (pages(30), pages(40))]));
        for (address, len, found) in [
            (0, pages(20), true),
            (8, pages(16), true),
            (0, pages(20) + 1, false),
            (0, pages(15), false),
            (pages(20), pages(16), false),
            (pages(29), pages(20), false),
            (pages(54), pages(16), true),
            (pages(54) + 1, pages(16), false),
            (usize::MAX, pages(16), false),
            (0, usize::MAX, false),
        ] {
            let run = image.long_run(address, len);
            assert_eq!(run.is_some(), found, "{len} bytes at {address}");
            assert!(run.is_none_or(|bytes| bytes == &memory[address..][..len]));
        }
    }

    #[test]
    fn a_changed_or_truncated_file_is_noticed() {
        let folder = std::env::temp_dir().join(format!("lethe-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("test.image");
        drop(Image::save(&path, &memory(), &models()).unwrap());
        assert!(Image::open(&path).is_ok());
        let good = fs::read(&path).unwrap();
        for at in [0, 10, 50, 60, 70, 5000, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            assert!(Image::open(&path).is_err(), "byte {at} changed");
        }
        for len in [0, 7, 39, 47, 100, 4096, good.len() - 4096] {
            fs::write(&path, &good[..len]).unwrap();
            assert!(Image::open(&path).is_err(), "cut to {len}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
