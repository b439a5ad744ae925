//! Where buffers live and kernels run.
//!
//! A [`Device`] compiles steps of a plan into kernels of its own, keeps tensors in its own memory
//! and runs kernels on them. What it cannot compile runs on the CPU: the
//! [`Placement`](crate::plan::Placement) says for each step where it runs and, where that is not
//! the device, why. [`Cpu`] is a device like any other, which is how the placed executor is tested
//! where there is no GPU; a plan that runs on the CPU alone takes the arena instead.

mod cpu;
#[cfg(feature = "webgpu")]
pub mod webgpu;

pub use cpu::Cpu;

use std::fmt::Debug;

use crate::error::Error;
use crate::graph::Attributes;
use crate::operator::Operator;
use crate::tensor::{DataType, Tensor};

/// Type and shape of a tensor that a kernel reads or writes.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    /// The element type.
    pub data_type: DataType,
    /// Sizes of the axes.
    pub shape: &'a [usize],
    /// The elements, where they are known when the kernel is compiled.
    pub value: Option<&'a Tensor>,
}

impl Meta<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Number of bytes.
    pub fn len_bytes(&self) -> usize {
        self.data_type.size_bytes(self.len()).unwrap_or(usize::MAX)
    }
}

/// A step with the shapes of a layout, to be compiled by a device.
#[derive(Debug)]
pub struct Request<'a> {
    /// The operator's domain.
    pub domain: &'a str,
    /// The operator's type.
    pub op_type: &'a str,
    /// The opset version the model imports for the domain.
    pub opset: i64,
    /// The attributes.
    pub attributes: &'a Attributes,
    /// The operator itself, for devices that can run it as it is.
    pub operator: &'a std::sync::Arc<dyn Operator>,
    /// The inputs; `None` where one is absent.
    pub inputs: Vec<Option<Meta<'a>>>,
    /// The outputs; `None` where nobody wants one.
    pub outputs: Vec<Option<Meta<'a>>>,
}

impl<'a> Request<'a> {
    /// The `i`-th input.
    ///
    /// # Errors
    /// When it is absent, as a reason for not compiling.
    pub fn input(&self, i: usize) -> Result<Meta<'a>, String> {
        self.optional_input(i)
            .ok_or_else(|| format!("input {i} is absent"))
    }

    /// The `i`-th input, where it is present.
    pub fn optional_input(&self, i: usize) -> Option<Meta<'a>> {
        self.inputs.get(i).copied().flatten()
    }

    /// The `i`-th output.
    ///
    /// # Errors
    /// When nobody wants it, as a reason for not compiling.
    pub fn output(&self, i: usize) -> Result<Meta<'a>, String> {
        self.outputs
            .get(i)
            .copied()
            .flatten()
            .ok_or_else(|| format!("output {i} is not wanted"))
    }
}

/// Something that has memory and runs kernels.
pub trait Device: Debug {
    /// Memory for one tensor.
    type Buffer: Debug;
    /// A step made ready for the shapes of a layout.
    type Kernel: Debug;

    /// Its name, as in `--device`.
    fn name(&self) -> &'static str;

    /// Makes a step ready to run.
    ///
    /// # Errors
    /// The reason why the device cannot run it; the CPU will.
    fn compile(&self, request: &Request<'_>) -> Result<Self::Kernel, String>;

    /// Memory for a tensor of `len_bytes`, content unspecified.
    ///
    /// # Errors
    /// [`Error::Device`] where there is not so much.
    fn allocate(&self, len_bytes: usize) -> Result<Self::Buffer, Error>;

    /// Whether a buffer can be used again for a tensor of `len_bytes`.
    fn fits(&self, buffer: &Self::Buffer, len_bytes: usize) -> bool;

    /// Copies bytes into a buffer.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost.
    fn write(&self, buffer: &Self::Buffer, bytes: &[u8]) -> Result<(), Error>;

    /// Copies `len_bytes` out of a buffer, once all kernels before have run. In a browser this
    /// waits for the event loop; elsewhere the future is ready when first polled.
    fn read(
        &self,
        buffer: &Self::Buffer,
        len_bytes: usize,
    ) -> impl Future<Output = Result<Vec<u8>, Error>>;

    /// Runs a kernel, in the order of the calls. `inputs` and `outputs` are those of the request,
    /// absent and unwanted ones left as `None`.
    ///
    /// # Errors
    /// [`Error::Device`] or the operator's own.
    fn run(
        &self,
        kernel: &Self::Kernel,
        inputs: &[Option<&Self::Buffer>],
        outputs: &[Option<&Self::Buffer>],
    ) -> Result<(), Error>;

    /// Overwrites a buffer with zeros.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost.
    fn wipe(&self, buffer: &Self::Buffer) -> Result<(), Error>;
}
