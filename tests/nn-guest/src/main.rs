//! A WASI command that computes through `wasi:nn`, as its first argument says. The tests of
//! `lethe run-component` give it a picture or a model on the standard input.

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "the generated bindings of the component model"
)]
#[rustfmt::skip]
mod bindings;

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use bindings::wasi::cli::exit::exit_with_code;
use bindings::wasi::nn::errors::Error;
use bindings::wasi::nn::graph::{ExecutionTarget, Graph, GraphEncoding, load, load_by_name};
use bindings::wasi::nn::tensor::{Tensor, TensorType};

/// The model that the guest brings with it.
const DIGITS: &[u8] = include_bytes!("../../../models/digits/model.onnx");

const TYPES: [(TensorType, usize); 7] = [
    (TensorType::Fp16, 2),
    (TensorType::Fp32, 4),
    (TensorType::Fp64, 8),
    (TensorType::Bf16, 2),
    (TensorType::U8, 1),
    (TensorType::I32, 4),
    (TensorType::I64, 8),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments {
        ["named", name] => load_by_name(name).and_then(|graph| read_digit(&graph)),
        ["brought"] => onnx(DIGITS).and_then(|graph| read_digit(&graph)),
        ["mistakes"] => mistakes(),
        ["load"] => onnx(&input()).map(|_| println!("loaded")),
        ["compute"] => compute(),
        ["forget"] => forget(),
        ["echo"] => echo(),
        ["graphs"] => hold_graphs(),
        ["contexts"] => hold_contexts(),
        ["tensors", bytes] => hold_tensors(bytes.parse().expect("a number of bytes")),
        ["builders"] => many_builders(),
        ["spin"] => spin(),
        ["sleep"] => {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        ["grow", mebibytes] => {
            let mebibytes: usize = mebibytes.parse().expect("a number of mebibytes");
            let held: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
            // The memory counts as used, so that it is asked for.
            std::hint::black_box(&held);
            println!("it is there");
            Ok(())
        }
        ["confined"] => {
            confined();
            Ok(())
        }
        ["panic"] => panic!("the guest gives up"),
        ["exit", code] => {
            exit_with_code(code.parse().expect("an exit code"));
            Ok(())
        }
        _ => {
            eprintln!("expected what to do, found {arguments:?}");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The standard input.
fn input() -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes);
    read.expect("the standard input can be read");
    bytes
}

fn told(error: &Error) -> String {
    format!("{:?}: {}", error.code(), error.data())
}

fn onnx(model: &[u8]) -> Result<Graph, Error> {
    load(&[model.to_vec()], GraphEncoding::Onnx, ExecutionTarget::Cpu)
}

/// Prints the outputs for the picture on the standard input, bit by bit, and the digit.
fn read_digit(graph: &Graph) -> Result<(), Error> {
    let context = graph.init_execution_context()?;
    let picture = Tensor::new(&[1, 1, 28, 28], TensorType::Fp32, &input());
    for (name, tensor) in context.compute(vec![("input".into(), picture)])? {
        let data = tensor.data();
        let (numbers, _) = data.as_chunks();
        let numbers: Vec<f32> = numbers.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let bits: Vec<u32> = numbers.iter().map(|n| n.to_bits()).collect();
        println!(
            "{name} {:?} {:?} {bits:?}",
            tensor.ty(),
            tensor.dimensions()
        );
        let most = numbers.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        println!("digit {}", most.expect("there is an output").0);
    }
    Ok(())
}

/// One line for each mistake: what it is, and what the host says.
fn mistakes() -> Result<(), Error> {
    let report = |name: &str, done: Result<(), Error>| match done {
        Ok(()) => println!("{name} | no error"),
        Err(error) => println!("{name} | {}", told(&error)),
    };
    let loaded = |builder: &[Vec<u8>], encoding, target| load(builder, encoding, target).map(drop);
    let (digits, cpu) = (vec![DIGITS.to_vec()], ExecutionTarget::Cpu);
    report("unknown name", load_by_name("absent").map(drop));
    report(
        "a path",
        load_by_name("../models/digits/model.onnx").map(drop),
    );
    report("openvino", loaded(&digits, GraphEncoding::Openvino, cpu));
    report("ggml", loaded(&digits, GraphEncoding::Ggml, cpu));
    report(
        "autodetect",
        loaded(&digits, GraphEncoding::Autodetect, cpu),
    );
    report(
        "tpu",
        loaded(&digits, GraphEncoding::Onnx, ExecutionTarget::Tpu),
    );
    report("no buffer", loaded(&[], GraphEncoding::Onnx, cpu));
    let halves = DIGITS.split_at(DIGITS.len() / 2);
    let halves = [halves.0.to_vec(), halves.1.to_vec()];
    report("two buffers", loaded(&halves, GraphEncoding::Onnx, cpu));
    report(
        "half a model",
        loaded(&halves[..1], GraphEncoding::Onnx, cpu),
    );
    report(
        "no model",
        loaded(&[b"no model".to_vec()], GraphEncoding::Onnx, cpu),
    );

    let context = onnx(DIGITS)?.init_execution_context()?;
    let picture =
        |dimensions: &[u32], data_type, bytes| Tensor::new(dimensions, data_type, &vec![0; bytes]);
    let good = || picture(&[1, 1, 28, 28], TensorType::Fp32, 3136);
    let compute = |name: &str, inputs: Vec<(&str, Tensor)>| {
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor));
        report(name, context.compute(inputs.collect()).map(drop));
    };
    compute("missing input", vec![]);
    compute("unknown input", vec![("input", good()), ("other", good())]);
    compute("input twice", vec![("input", good()), ("input", good())]);
    compute(
        "too few bytes",
        vec![("input", picture(&[1, 1, 28, 28], TensorType::Fp32, 3135))],
    );
    compute(
        "too many bytes",
        vec![("input", picture(&[1, 1, 28, 28], TensorType::Fp32, 3137))],
    );
    compute(
        "wrong dimensions",
        vec![("input", picture(&[1, 1, 14, 56], TensorType::Fp32, 3136))],
    );
    compute(
        "wrong rank",
        vec![("input", picture(&[28, 28], TensorType::Fp32, 3136))],
    );
    compute(
        "wrong type",
        vec![("input", picture(&[1, 1, 28, 28], TensorType::I32, 3136))],
    );
    let endless = [u32::MAX; 8];
    compute(
        "endless dimensions",
        vec![("input", picture(&endless, TensorType::Fp32, 4))],
    );
    compute("a good picture after all", vec![("input", good())]);
    Ok(())
}

/// Runs the model on the standard input with `x` = [1, 2].
fn compute() -> Result<(), Error> {
    let context = onnx(&input())?.init_execution_context()?;
    let numbers = [1f32, 2.0].map(f32::to_le_bytes).concat();
    let x = Tensor::new(&[2], TensorType::Fp32, &numbers);
    for (name, tensor) in context.compute(vec![("x".into(), x)])? {
        let (data_type, dimensions) = (tensor.ty(), tensor.dimensions());
        println!("{name} {data_type:?} {dimensions:?} {:?}", tensor.data());
    }
    Ok(())
}

/// Sends the standard input through the model `fourfold`, and holds all of it to the end.
fn forget() -> Result<(), Error> {
    let input = input();
    let context = load_by_name("fourfold")?.init_execution_context()?;
    let x = Tensor::new(&[input.len() as u32], TensorType::U8, &input);
    for (_, tensor) in context.compute(vec![("x".into(), x)])? {
        println!("fourfold: {}", tensor.data() == input.repeat(4));
        std::mem::forget(tensor);
    }
    Ok(())
}

/// Sends a tensor of every type through the model on the standard input, whose inputs have the
/// types' numbers for names and are its outputs.
fn echo() -> Result<(), Error> {
    let context = onnx(&input())?.init_execution_context()?;
    let elements = |i: usize, size: usize| -> Vec<u8> {
        let bytes = 0..6 * size;
        bytes.map(|byte| (byte * 7 + i) as u8 & 0x3f).collect()
    };
    let inputs = TYPES.iter().enumerate().map(|(i, &(data_type, size))| {
        let tensor = Tensor::new(&[2, 3], data_type, &elements(i, size));
        assert_eq!((tensor.ty(), tensor.dimensions()), (data_type, vec![2, 3]));
        assert_eq!(tensor.data(), elements(i, size));
        (format!("x{i}"), tensor)
    });
    let outputs = context.compute(inputs.collect())?;
    for (i, ((name, tensor), (data_type, size))) in outputs.iter().zip(TYPES).enumerate() {
        assert_eq!(*name, format!("y{i}"));
        assert_eq!((tensor.ty(), tensor.dimensions()), (data_type, vec![2, 3]));
        assert_eq!(tensor.data(), elements(i, size), "{data_type:?}");
    }
    println!("{} types", outputs.len());
    Ok(())
}

/// Loads models and drops them, then loads them and keeps them.
fn hold_graphs() -> Result<(), Error> {
    for _ in 0..8 {
        onnx(DIGITS)?;
    }
    let mut held = Vec::new();
    loop {
        match onnx(DIGITS) {
            Ok(graph) => held.push(graph),
            Err(error) => {
                println!("{} graphs", held.len());
                return Err(error);
            }
        }
    }
}

fn hold_contexts() -> Result<(), Error> {
    let graph = onnx(DIGITS)?;
    let mut held = Vec::new();
    loop {
        match graph.init_execution_context() {
            Ok(context) => held.push(context),
            Err(error) => {
                println!("{} contexts", held.len());
                return Err(error);
            }
        }
    }
}

/// Makes tensors and drops them, then makes them and keeps them.
fn hold_tensors(bytes: usize) -> Result<(), Error> {
    let tensor = || Tensor::new(&[1], TensorType::U8, &vec![1; bytes]);
    for _ in 0..2000 {
        tensor();
    }
    println!("dropped");
    let mut held = Vec::new();
    loop {
        held.push(tensor());
    }
}

/// Gives one buffer many times over, which the host would have to copy each time.
fn many_builders() -> Result<(), Error> {
    let megabyte = vec![0u8; 1 << 20];
    let builders = vec![megabyte; 256];
    load(&builders, GraphEncoding::Onnx, ExecutionTarget::Cpu).map(drop)
}

fn spin() -> ! {
    let mut state = 1u64;
    loop {
        state = std::hint::black_box(state.wrapping_mul(3));
    }
}

/// Prints what of the host's world can be reached.
fn confined() {
    let files = ["/", ".", "/etc/passwd", "Cargo.toml"];
    let reached = files.iter().filter(|path| std::fs::metadata(path).is_ok());
    println!("{} files", reached.count());
    println!("{} variables", std::env::vars().count());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
    println!(
        "connected: {}",
        std::net::TcpStream::connect(address).is_ok()
    );
    println!(
        "bound: {}",
        std::net::UdpSocket::bind("127.0.0.1:0").is_ok()
    );
}
