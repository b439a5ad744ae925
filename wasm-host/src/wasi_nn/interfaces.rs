//! The functions of `wasi:nn`, as guests call them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lethe_engine::tensor::SharedBytes;
use lethe_engine::{DataType, Value};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use zeroize::Zeroizing;

use super::bindings::wasi::nn::{errors, graph, inference, tensor};
use super::error::NnError;
use super::holdings::{Held, HoldingLimits, Holdings, Share};
use super::models::{Models, model_in};
use super::{ErrorCode, ExecutionTarget, GraphEncoding, TensorType};
use crate::serve::loaded::Loaded;
use lethe_sandbox::{CallControl, stack, wiped_bytes};

/// What `wasi:nn` knows of one guest.
#[derive(Debug)]
pub struct WasiNn {
    models: Arc<Models>,
    holdings: Arc<Holdings>,
}

impl WasiNn {
    /// A guest that may have these models.
    pub fn new(models: Arc<Models>, limits: HoldingLimits) -> Self {
        let holdings = Holdings::new(limits);
        Self { models, holdings }
    }
}

/// What the functions work on: the guest's part of a store.
pub struct WasiNnView<'a> {
    /// What is known of the guest.
    pub nn: &'a mut WasiNn,
    /// Where its resources are.
    pub table: &'a mut ResourceTable,
}

impl fmt::Debug for WasiNnView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WasiNnView").field(&self.nn).finish()
    }
}

/// The data of a store that has `wasi:nn`.
pub trait HasWasiNn: Send {
    /// The part of it that belongs to `wasi:nn`.
    fn wasi_nn(&mut self) -> WasiNnView<'_>;
}

struct View;

impl HasData for View {
    type Data<'a> = WasiNnView<'a>;
}

/// Offers `wasi:nn` to the components of this linker.
///
/// # Errors
/// When the linker has it already.
pub fn add_to_linker<T: HasWasiNn + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    super::bindings::Ml::add_to_linker::<_, View>(linker, T::wasi_nn)
}

/// A tensor that a guest holds. Its bytes are overwritten when it is dropped.
pub struct Tensor {
    dimensions: Vec<u32>,
    data_type: TensorType,
    data: SharedBytes,
    _shares: [Share; 2],
}

impl fmt::Debug for Tensor {
    /// No elements: they may be somebody's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}{:?})", self.data_type, self.dimensions)
    }
}

impl Tensor {
    fn new(
        holdings: &Arc<Holdings>,
        dimensions: Vec<u32>,
        data_type: TensorType,
        data: SharedBytes,
    ) -> Result<Self, NnError> {
        let bytes = data.len() + size_of_val(&*dimensions);
        let shares = [
            holdings.take(Held::Tensors, 1)?,
            holdings.take(Held::Bytes, bytes as u64)?,
        ];
        Ok(Self {
            dimensions,
            data_type,
            data,
            _shares: shares,
        })
    }

    /// The engine's tensor of the same bytes, for the input of this name.
    fn into_value(self, name: &str) -> Result<Value, NnError> {
        let shape: Vec<usize> = self.dimensions.iter().map(|&d| d as usize).collect();
        let data_type = engine_type(self.data_type);
        let tensor = lethe_engine::Tensor::from_bytes(data_type, &shape, self.data);
        let tensor = tensor.map_err(|error| NnError::Tensor {
            name: name.into(),
            reason: error.to_string(),
        })?;
        Ok(Value::Tensor(tensor.aligned()))
    }

    /// The guest's tensor of an output.
    fn of_output(holdings: &Arc<Holdings>, name: &str, value: Value) -> Result<Self, NnError> {
        let other = |value: &Value| NnError::OutputType {
            name: name.into(),
            found: value.kind(),
        };
        let Value::Tensor(tensor) = &value else {
            return Err(other(&value));
        };
        let data_type = guest_type(tensor.data_type()).ok_or_else(|| other(&value))?;
        let dimensions = tensor.shape().iter().map(|&d| u32::try_from(d)).collect();
        // More than 2^32 elements along an axis are more bytes than any guest can take.
        let dimensions: Result<Vec<u32>, _> = dimensions;
        let dimensions = dimensions.map_err(|_| other(&value))?;
        let data = Bytes::copy_from_slice(tensor.bytes());
        Self::new(holdings, dimensions, data_type, data.into())
    }
}

/// A model that a guest loaded.
#[derive(Debug)]
pub struct Graph(Arc<HeldModel>);

/// A loaded model with what it counts: as long as a graph or one of its contexts is held.
#[derive(Debug)]
struct HeldModel {
    model: Arc<Loaded>,
    _shares: [Share; 2],
}

/// What a guest computes in.
#[derive(Debug)]
pub struct Context {
    graph: Arc<HeldModel>,
    _share: Share,
}

/// Tells a run that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` on a thread of its own. Where nobody waits for it any more, it is left to its end.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NnError> + Send + 'static,
) -> Result<T, NnError> {
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        stack::wipe();
        done
    });
    done.await.unwrap_or(Err(NnError::Lost))
}

impl WasiNnView<'_> {
    /// A result as a guest sees it: errors are resources.
    fn seen<T: Send + 'static>(
        &mut self,
        result: Result<T, NnError>,
    ) -> wasmtime::Result<Result<Resource<T>, Resource<NnError>>> {
        Ok(match result {
            Ok(value) => Ok(self.table.push(value)?),
            Err(error) => Err(self.table.push(error)?),
        })
    }
}

impl WasiNn {
    async fn graph_of(
        &self,
        builder: Vec<Vec<u8>>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Result<Graph, NnError> {
        let model = model_in(builder, encoding)?;
        let shares = [
            self.holdings.take(Held::Graphs, 1)?,
            self.holdings.take(Held::Bytes, model.len() as u64)?,
        ];
        let models = self.models.clone();
        let model = beside(move || models.of_bytes(model.into(), target)).await?;
        Ok(Graph(Arc::new(HeldModel {
            model,
            _shares: shares,
        })))
    }

    async fn graph_named(&self, name: String) -> Result<Graph, NnError> {
        let shares = [
            self.holdings.take(Held::Graphs, 1)?,
            self.holdings.take(Held::Bytes, 0)?,
        ];
        let models = self.models.clone();
        let model = beside(move || models.by_name(&name)).await?;
        Ok(Graph(Arc::new(HeldModel {
            model,
            _shares: shares,
        })))
    }

    async fn outputs(
        &self,
        graph: Arc<HeldModel>,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, NnError> {
        let inputs = inputs.into_iter().map(|(name, tensor)| {
            let value = tensor.into_value(&name)?;
            Ok((name, value))
        });
        let inputs: Vec<(String, Value)> = inputs.collect::<Result<_, NnError>>()?;
        let control = CallControl::default();
        let _stop = StopOnDrop(control.stop.clone());
        let holdings = self.holdings.clone();
        beside(move || {
            let (outputs, _) = graph.model.run(inputs, &control);
            let outputs = outputs.map_err(NnError::from).and_then(|outputs| {
                let outputs = outputs.into_iter().map(|(name, value)| {
                    let tensor = Tensor::of_output(&holdings, &name, value)?;
                    Ok((name, tensor))
                });
                outputs.collect()
            });
            graph.model.wipe();
            outputs
        })
        .await
    }
}

impl tensor::Host for WasiNnView<'_> {}

impl tensor::HostTensor for WasiNnView<'_> {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        data_type: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let data = wiped_bytes(Zeroizing::new(data)).into();
        // The interface has no error for this: the guest ends.
        let tensor = Tensor::new(&self.nn.holdings, dimensions, data_type, data)
            .map_err(wasmtime::Error::new)?;
        Ok(self.table.push(tensor)?)
    }

    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<TensorType> {
        Ok(self.table.get(&tensor)?.data_type)
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.to_vec())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

impl graph::Host for WasiNnView<'_> {
    async fn load(
        &mut self,
        builder: Vec<Vec<u8>>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        let graph = self.nn.graph_of(builder, encoding, target).await;
        self.seen(graph)
    }

    async fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        let graph = self.nn.graph_named(name).await;
        self.seen(graph)
    }
}

impl graph::HostGraph for WasiNnView<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> wasmtime::Result<Result<Resource<Context>, Resource<NnError>>> {
        let graph = self.table.get(&graph)?.0.clone();
        let share = self.nn.holdings.take(Held::Contexts, 1);
        self.seen(share.map(|share| Context {
            graph,
            _share: share,
        }))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for WasiNnView<'_> {}

impl inference::HostGraphExecutionContext for WasiNnView<'_> {
    async fn compute(
        &mut self,
        context: Resource<Context>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, Resource<Tensor>)>, Resource<NnError>>> {
        let graph = self.table.get(&context)?.graph.clone();
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.table.delete(tensor)?)))
            .collect::<wasmtime::Result<_>>()?;
        match self.nn.outputs(graph, inputs).await {
            Ok(outputs) => {
                let outputs = outputs
                    .into_iter()
                    .map(|(name, tensor)| Ok((name, self.table.push(tensor)?)));
                Ok(Ok(outputs.collect::<wasmtime::Result<_>>()?))
            }
            Err(error) => Ok(Err(self.table.push(error)?)),
        }
    }

    fn drop(&mut self, context: Resource<Context>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for WasiNnView<'_> {}

impl errors::HostError for WasiNnView<'_> {
    fn code(&mut self, error: Resource<NnError>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code())
    }

    fn data(&mut self, error: Resource<NnError>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.data())
    }

    fn drop(&mut self, error: Resource<NnError>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

fn engine_type(data_type: TensorType) -> DataType {
    match data_type {
        TensorType::Fp16 => DataType::Float16,
        TensorType::Fp32 => DataType::Float32,
        TensorType::Fp64 => DataType::Float64,
        TensorType::Bf16 => DataType::Bfloat16,
        TensorType::U8 => DataType::Uint8,
        TensorType::I32 => DataType::Int32,
        TensorType::I64 => DataType::Int64,
    }
}

fn guest_type(data_type: DataType) -> Option<TensorType> {
    use TensorType::{Bf16, Fp16, Fp32, Fp64, I32, I64, U8};
    let all = [Fp16, Fp32, Fp64, Bf16, U8, I32, I64];
    all.into_iter()
        .find(|&found| engine_type(found) == data_type)
}
