//! What a kernel asks the GPU to do.

/// A shader: WGSL files that are compiled together, with the entry point `main`.
#[derive(Debug)]
pub(super) struct Shader {
    /// Its name, that of its last file.
    pub(super) name: &'static str,
    /// The files.
    pub(super) sources: &'static [&'static str],
    /// Whether its last binding is the flag for data it cannot work with.
    pub(super) reports_faults: bool,
}

/// Declares a shader by its files under `shaders`.
macro_rules! shader {
    ($name:literal) => {
        shader!($name, [], false)
    };
    ($name:literal, [$($prelude:literal),*], $faults:literal) => {
        &$crate::device::webgpu::shader::Shader {
            name: $name,
            sources: &[
                $(include_str!(concat!("../shaders/", $prelude, ".wgsl")),)*
                include_str!(concat!("../shaders/", $name, ".wgsl")),
            ],
            reports_faults: $faults,
        }
    };
}
pub(super) use shader;

/// What a binding reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The step's so-manyth input.
    Input(usize),
    /// Nothing: an optional input that is not there.
    Absent,
}

/// One dispatch: a shader with its constants, bindings and size.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) shader: &'static Shader,
    /// Values of the shader's `override` constants.
    pub(super) constants: Vec<(&'static str, f64)>,
    /// Binding 0: words that the shader reads its sizes from.
    pub(super) parameters: Vec<u32>,
    /// Bindings 1 and up.
    pub(super) inputs: Vec<Source>,
    /// The output that the binding after those is.
    pub(super) output: usize,
    pub(super) workgroups: [u32; 3],
}

/// Threads in a workgroup of the shaders that have one thread an element.
const THREADS: usize = 64;
/// Workgroups in a row; WebGPU allows 65,535 in each dimension.
const ROW: usize = 32_768;

/// Workgroups for so many threads, as rows: the shader's index is `x + y · ROW · 64`.
pub(super) fn workgroups_for(threads: usize) -> [u32; 3] {
    rows_of(threads.div_ceil(THREADS))
}

/// So many workgroups, as rows: the shader's index is `x + y · ROW`.
pub(super) fn rows_of(workgroups: usize) -> [u32; 3] {
    [
        workgroups.min(ROW) as u32,
        workgroups.div_ceil(ROW) as u32,
        1,
    ]
}
