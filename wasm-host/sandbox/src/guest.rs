//! The guest module that `build.rs` embeds, and the doors it is opened by.
//!
//! There is one module with every door. A [`Door`] says which imports stay and which exports show;
//! all other imports are *closed*: replaced by functions that trap. So the machine code of a model
//! is the same in the sandbox, with and without native kernels, and on the edge.
//!
//! ```text
//!              imports that stay      exports that show
//! cell         lethe:kernels          memory, lethe_*
//! pure cell    none                   memory, lethe_*
//! component    wasi:*                 memory, wasi:*, cabi_*
//! ```
//!
//! The data section is replaced too: by nothing for cells, whose memory the host maps in place, and
//! by a frozen memory for components.

mod liveness;
mod moved_table;
mod reencoding;
mod references;

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use sha2::{Digest, Sha256};

pub use liveness::{Frozen, Known, Live};

/// The guest as `build.rs` built it.
static MODULE: &[u8] = include_bytes!(env!("LETHE_GUEST"));

/// The embedded guest.
static GUEST: Guest = Guest::new(MODULE, *include_bytes!(env!("LETHE_GUEST_SHA256")));

/// The guest with relaxed SIMD, where this program was built with it.
#[cfg(feature = "relaxed-guest")]
static RELAXED: Guest = Guest::new(
    include_bytes!(env!("LETHE_GUEST_RELAXED")),
    *include_bytes!(env!("LETHE_GUEST_RELAXED_SHA256")),
);

/// The first guest with its table moved.
static GUEST_MOVED: LazyLock<Guest> = LazyLock::new(|| GUEST.moved());

/// The second guest with its table moved.
#[cfg(feature = "relaxed-guest")]
static RELAXED_MOVED: LazyLock<Guest> = LazyLock::new(|| RELAXED.moved());

/// Which build of the guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestBuild {
    is_relaxed: bool,
    is_table_moved: bool,
}

impl GuestBuild {
    /// With the 128-bit vectors that every engine has.
    pub const SIMD128: Self = Self {
        is_relaxed: false,
        is_table_moved: false,
    };
    /// With relaxed SIMD, which not every host of components lets in.
    pub const RELAXED_SIMD: Self = Self {
        is_relaxed: true,
        is_table_moved: false,
    };

    /// Whether this program has it.
    pub fn is_there(self) -> bool {
        !self.is_relaxed || cfg!(feature = "relaxed-guest")
    }

    /// The same with its table moved: a bundle loads its models in it too, to learn what of a memory
    /// is a function.
    pub fn moved(self) -> Self {
        Self {
            is_table_moved: true,
            ..self
        }
    }

    /// The guest; the plain one where the other is not there, which who asks for it has to check.
    pub fn guest(self) -> &'static Guest {
        match (self.is_relaxed, self.is_table_moved) {
            #[cfg(feature = "relaxed-guest")]
            (true, false) => &RELAXED,
            #[cfg(feature = "relaxed-guest")]
            (true, true) => &RELAXED_MOVED,
            (_, true) => &GUEST_MOVED,
            (_, false) => &GUEST,
        }
    }
}

/// The import module of the kernels that the host computes.
pub const KERNELS: &str = "lethe:kernels";

/// Bytes of a page of linear memory.
pub const WASM_PAGE: usize = 64 << 10;

/// Which imports of the guest stay, and which exports show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The sandbox: kernels by the host, no WASI.
    Cell,
    /// The sandbox without any import.
    PureCell,
    /// The edge: WASI HTTP, no kernels by the host.
    Component,
}

impl Door {
    fn keeps_import(self, module: &str) -> bool {
        match self {
            Self::Cell => module == KERNELS,
            Self::PureCell => false,
            Self::Component => module != KERNELS,
        }
    }

    fn keeps_export(self, name: &str) -> bool {
        match self {
            Self::Cell | Self::PureCell => name == "memory" || name.starts_with("lethe_"),
            Self::Component => {
                name == "memory" || name.starts_with("wasi:") || name.starts_with("cabi_")
            }
        }
    }

    /// The sections that describe the component's types are for the tool that wraps it.
    fn keeps_custom_section(self, name: &str) -> bool {
        self == Self::Component && name.starts_with("component-type")
    }
}

/// A wasm module that does not have the shape that is needed.
#[derive(Debug, thiserror::Error)]
#[error("guest module: {0}")]
pub struct GuestError(String);

impl From<wasmparser::BinaryReaderError> for GuestError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(error.to_string())
    }
}

/// A piece of linear memory: where it begins and what it holds.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Address of its first byte.
    pub address: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A guest module.
#[derive(Debug)]
pub struct Guest {
    module: &'static [u8],
    hash: [u8; 32],
    /// Read from the module when it is asked for: a server that finds all in its cache never does,
    /// and the module's pages do not count as its memory.
    start: OnceLock<Start>,
}

/// A guest's memory before anything ran.
#[derive(Debug)]
struct Start {
    memory_bytes: usize,
    data: Vec<Segment<'static>>,
}

impl Start {
    fn of(module: &'static [u8]) -> Result<Self, GuestError> {
        use wasmparser::{DataKind, Operator, Payload};
        let mut memory_pages = 0;
        let mut data = Vec::new();
        for payload in wasmparser::Parser::new(0).parse_all(module) {
            match payload? {
                Payload::MemorySection(section) => {
                    for memory in section {
                        memory_pages = memory?.initial as usize;
                    }
                }
                Payload::DataSection(section) => {
                    for segment in section {
                        let segment = segment?;
                        let DataKind::Active {
                            memory_index: 0,
                            offset_expr,
                        } = segment.kind
                        else {
                            return Err(GuestError("a data segment that is not active".into()));
                        };
                        let Operator::I32Const { value } =
                            offset_expr.get_operators_reader().read()?
                        else {
                            return Err(GuestError("a data segment without an address".into()));
                        };
                        let address = value.cast_unsigned() as usize;
                        data.push(Segment {
                            address,
                            bytes: segment.data,
                        });
                    }
                }
                _ => {}
            }
        }
        let memory_bytes = memory_pages * WASM_PAGE;
        let inside = |s: &Segment<'_>| s.address + s.bytes.len() <= memory_bytes;
        if !data.iter().all(inside) {
            return Err(GuestError("data outside of the memory".into()));
        }
        Ok(Self { memory_bytes, data })
    }
}

impl Guest {
    const fn new(module: &'static [u8], hash: [u8; 32]) -> Self {
        Self {
            module,
            hash,
            start: OnceLock::new(),
        }
    }

    /// The same with its table moved.
    fn moved(&self) -> Self {
        let moved = moved_table::moved(self.module);
        let moved = moved.unwrap_or_else(|error| panic!("the embedded guest is broken: {error}"));
        let hash = Sha256::digest(&moved).into();
        // As long-lived as the one that is part of the program.
        Self::new(Vec::leak(moved), hash)
    }

    fn start(&self) -> &Start {
        self.start.get_or_init(|| {
            let start = Start::of(self.module);
            start.unwrap_or_else(|error| panic!("the embedded guest is broken: {error}"))
        })
    }

    /// SHA-256 of the module.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The memory's content before anything ran.
    pub fn data(&self) -> &[Segment<'static>] {
        &self.start().data
    }

    /// The memory's size before anything ran.
    pub fn memory_bytes(&self) -> usize {
        self.start().memory_bytes
    }

    /// What requests through this door can reach, as far as they are known.
    ///
    /// # Errors
    /// When the module has a part that is not known here.
    pub fn live(&self, door: Door, known: Known<'_>) -> Result<Live, GuestError> {
        liveness::live(self.module, |export| door.keeps_export(export), known)
    }

    /// The module with this door open and all others closed, of whose code what is `live` is left.
    /// Its memory has `memory_bytes` and begins with `data`.
    ///
    /// # Errors
    /// When the module has a part that the rewriting does not know.
    pub fn open(
        &self,
        door: Door,
        live: &Live,
        memory_bytes: usize,
        data: &[Segment<'_>],
    ) -> Result<Vec<u8>, GuestError> {
        let memory_pages = (memory_bytes / WASM_PAGE) as u64;
        reencoding::open(self.module, door, live, memory_pages, data)
    }
}

/// The pieces of `memory` that are not zero: runs of whole pages of `page` bytes, joined where
/// fewer than `join` zero bytes lie between them.
pub fn nonzero_runs(memory: &[u8], page: usize, join: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, bytes) in memory.chunks(page).enumerate() {
        if is_zero(bytes) {
            continue;
        }
        let start = i * page;
        let end = start + bytes.len();
        match runs.last_mut() {
            Some(last) if start - last.end < join.max(1) => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| *block == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_what_is_not_zero() {
        let mut memory = vec![0u8; 100];
        for at in [5, 31, 32, 99] {
            memory[at] = 1;
        }
        assert_eq!(nonzero_runs(&memory, 10, 1), [0..10, 30..40, 90..100]);
        assert_eq!(nonzero_runs(&memory, 10, 30), [0..40, 90..100]);
        assert!(nonzero_runs(&[], 10, 1).is_empty());
        assert_eq!(nonzero_runs(&memory[..33], 32, 1), [0..33]);
    }

    #[test]
    fn the_hash_that_was_built_in_is_the_modules() {
        assert_eq!(GUEST.hash()[..], Sha256::digest(MODULE)[..]);
    }

    #[test]
    fn a_changed_source_of_any_crate_in_the_guest_builds_it_again() {
        let out = std::path::Path::new(env!("LETHE_GUEST")).parent().unwrap();
        let said = std::fs::read_to_string(out.with_file_name("output")).unwrap();
        for source in [
            "engine/kernels/src/kernels.rs",
            "engine/src/operators.rs",
            "wasi-server/src/cell.rs",
            "engine/kernels/Cargo.toml",
        ] {
            let line =
                |line: &str| line.starts_with("cargo:rerun-if-changed=") && line.ends_with(source);
            assert!(said.lines().any(line), "{source} is not among {said}");
        }
    }

    #[test]
    fn a_component_is_rid_of_the_code_that_loads_models() {
        let live = |door: Door| {
            let live = GUEST.live(door, Known::Nothing).unwrap();
            live.functions.into_iter().filter(|live| *live).count()
        };
        // Both answer; only a cell can be asked to load.
        assert!(live(Door::Component) < live(Door::PureCell));
        let opened = |door| {
            let live = GUEST.live(door, Known::Nothing).unwrap();
            GUEST
                .open(door, &live, GUEST.memory_bytes(), &[])
                .unwrap()
                .len()
        };
        assert!(opened(Door::Component) < MODULE.len(), "{}", MODULE.len());
    }

    #[test]
    fn doors_keep_their_imports_and_exports_and_no_other() {
        let cases = [
            (Door::Cell, &[KERNELS][..], &["memory", "lethe_"][..]),
            (Door::PureCell, &[], &["memory", "lethe_"]),
            (Door::Component, &["wasi:"], &["memory", "wasi:", "cabi_"]),
        ];
        for (door, imports, exports) in cases {
            let live = GUEST.live(door, Known::Nothing).unwrap();
            let module = GUEST.open(door, &live, GUEST.memory_bytes(), &[]).unwrap();
            wasmparser::validate(&module).unwrap_or_else(|error| panic!("{door:?}: {error}"));
            let expected =
                |name: &str, prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
            let mut found_exports = 0;
            for payload in wasmparser::Parser::new(0).parse_all(&module) {
                match payload.unwrap() {
                    wasmparser::Payload::ImportSection(section) => {
                        for import in section.into_imports() {
                            let module = import.unwrap().module;
                            assert!(expected(module, imports), "{door:?} imports {module}");
                        }
                    }
                    wasmparser::Payload::ExportSection(section) => {
                        for export in section {
                            let name = export.unwrap().name;
                            assert!(expected(name, exports), "{door:?} exports {name}");
                            found_exports += 1;
                        }
                    }
                    _ => {}
                }
            }
            assert!(found_exports >= 3, "{door:?} has {found_exports} exports");
        }
    }
}
