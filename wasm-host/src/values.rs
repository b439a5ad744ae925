//! Values in files and on the command line: what `run`, `verify` and `bench` read and write.
//!
//! The ending of a file says how it is read:
//!
//! | ending | content |
//! | --- | --- |
//! | `.npy`, `.npz` | numpy's; of an archive, the entry with the input's name or the only one |
//! | `.pb` | a `TensorProto`, `SequenceProto` or `OptionalProto`, as the model declares the input |
//! | `.json` | nested arrays; `{"datatype", "shape", "data"}`; or a request with `"inputs"` |
//! | `.png`, `.jpg` | scaled to the input's height and width; grey or RGB by its channels |
//! | `.wav` | samples from -1 to 1, channels averaged |
//! | `.txt` | numbers between spaces, commas or line ends; for string inputs the text |
//!
//! Anything else is the value itself, as in JSON: `--input sr=16000`, `--input x=[[1, 2]]`. One
//! number for an input with axes fills all of them (an axis of any size gets the size 1).

pub mod elements;
mod json;
pub mod npy;
mod npz;
mod picture;
pub mod protobuf;
mod sound;
mod text;

pub use elements::Elements;

use std::path::{Path, PathBuf};

use lethe_engine::{DataType, Dim, Value, ValueInfo};

/// A value that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// A file cannot be read.
    #[error("input {input:?}: cannot read {}: {source}", path.display())]
    File {
        /// The input.
        input: String,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// What is in a file is not what its ending says, or does not fit the input.
    #[error("input {input:?}: {}: {reason}", path.display())]
    Content {
        /// The input.
        input: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The value on the command line does not fit the input.
    #[error("input {input:?}: {reason}")]
    Literal {
        /// The input.
        input: String,
        /// What is wrong.
        reason: String,
    },
}

/// The type and axes that a reader has to fit.
#[derive(Debug, Clone, Copy)]
struct Declared<'a> {
    name: &'a str,
    info: &'a ValueInfo,
}

impl Declared<'_> {
    /// The element type; float where the model does not say.
    fn data_type(&self) -> DataType {
        self.info
            .value_type
            .data_type()
            .unwrap_or(DataType::Float32)
    }

    /// The axes as numbers, `None` where any size will do; `None` where not even their number is
    /// known.
    fn axes(&self) -> Option<Vec<Option<usize>>> {
        let dims = self.info.value_type.dims.as_ref()?;
        Some(dims.iter().map(Dim::known).collect())
    }

    /// A shape for so many elements in a row: leading axes of size 1, the last one takes them all.
    fn shape_of_row(&self, len: usize) -> Vec<usize> {
        let Some(axes) = self.axes() else {
            return vec![len];
        };
        let known: Option<Vec<usize>> = axes.iter().copied().collect();
        match known {
            Some(shape) if lethe_engine::tensor::element_count(&shape) == Some(len) => shape,
            _ => {
                let mut shape = vec![1; axes.len().max(1)];
                *shape.last_mut().expect("there is at least one axis") = len;
                shape
            }
        }
    }
}

/// Reads the value that `text`, a file or a value, gives for an input.
///
/// # Errors
/// When the file cannot be read or its content does not fit the input.
pub fn read_input(info: &ValueInfo, text: &str) -> Result<Value, ValueError> {
    let declared = Declared {
        name: &info.name,
        info,
    };
    let path = Path::new(text);
    let Some(read) = reader(path) else {
        return text::literal(declared, text)
            .map(Value::Tensor)
            .map_err(|reason| ValueError::Literal {
                input: info.name.to_string(),
                reason,
            });
    };
    let bytes = std::fs::read(path).map_err(|source| ValueError::File {
        input: info.name.to_string(),
        path: path.into(),
        source,
    })?;
    read(declared, bytes).map_err(|reason| ValueError::Content {
        input: info.name.to_string(),
        path: path.into(),
        reason,
    })
}

type Reader = fn(Declared<'_>, Vec<u8>) -> Result<Value, String>;

/// What reads files with this file's ending.
fn reader(path: &Path) -> Option<Reader> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match ending.as_str() {
        "npy" => |_, bytes| npy::decode(&bytes).map(Value::Tensor),
        "npz" => |declared, bytes| npz::decode(declared.name, bytes).map(Value::Tensor),
        "pb" => |declared, bytes| {
            let kind = declared.info.value_type.kind.as_ref();
            let (_, value) = protobuf::decode(kind, bytes.into()).map_err(|e| e.to_string())?;
            Ok(value)
        },
        "json" => |declared, bytes| json::decode(declared, &bytes).map(Value::Tensor),
        "png" | "jpg" | "jpeg" => {
            |declared, bytes| picture::decode(declared, &bytes).map(Value::Tensor)
        }
        "wav" => |declared, bytes| sound::decode(declared, &bytes).map(Value::Tensor),
        "txt" => |declared, bytes| text::decode(declared, bytes).map(Value::Tensor),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::{Tensor, ValueType};

    fn input(data_type: DataType, dims: &[Dim]) -> ValueInfo {
        ValueInfo {
            name: "x".into(),
            value_type: ValueType::tensor(data_type, Some(dims.iter().cloned().collect())),
        }
    }

    fn read(data_type: DataType, dims: &[Dim], text: &str) -> Result<Tensor, String> {
        let value = read_input(&input(data_type, dims), text).map_err(|e| e.to_string())?;
        Ok(value.as_tensor().unwrap().clone())
    }

    #[test]
    fn values_on_the_command_line() {
        use DataType::{Bool, Float32, Int64};
        let any = Dim::Unknown;
        let two = Dim::Known(2);
        let f32s = |shape: &[usize], e: &[f32]| Ok(Tensor::from_slice(shape, e).unwrap());
        let i64s = |shape: &[usize], e: &[i64]| Ok(Tensor::from_slice(shape, e).unwrap());
        assert_eq!(read(Int64, &[], "16000"), i64s(&[], &[16000]));
        assert_eq!(
            read(Float32, &[two.clone(), any.clone()], "0.5"),
            f32s(&[2, 1], &[0.5; 2])
        );
        assert_eq!(
            read(Float32, &[any.clone(), two.clone()], "[[1, 2]]"),
            f32s(&[1, 2], &[1.0, 2.0])
        );
        assert_eq!(
            read(Int64, std::slice::from_ref(&any), "[]"),
            i64s(&[0], &[])
        );
        // Beyond 2^53 an integer must not become a float on its way.
        assert_eq!(
            read(Int64, &[], "9007199254740993"),
            i64s(&[], &[9_007_199_254_740_993])
        );
        assert_eq!(
            read(Bool, &[], "true").map(|t| t.bytes().to_vec()),
            Ok(vec![1])
        );
        for (data_type, text) in [
            (Int64, "1.5"),
            (Int64, "[1, [2]]"),
            (Int64, "x"),
            (DataType::Uint8, "256"),
        ] {
            assert!(
                read(data_type, std::slice::from_ref(&any), text).is_err(),
                "{text}"
            );
        }
        let words = read(DataType::String, &[], "a river");
        assert_eq!(words.unwrap().as_strings().unwrap(), ["a river"]);
    }

    #[test]
    fn files_by_their_ending() {
        let folder = std::env::temp_dir().join(format!("lethe-values-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let dims = [Dim::Known(1), Dim::Unknown];
        let expected = Tensor::from_slice(&[1, 3], &[1.0f32, -2.0, 3.5]).unwrap();
        let object = br#"{"datatype": "FP32", "shape": [1, 3], "data": [1, -2, 3.5]}"#;
        let request = br#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, -2, 3.5]}]}"#;
        let cases = [
            file("a.txt", b"1, -2\n3.5\n"),
            file("a.json", b"[[1, -2, 3.5]]"),
            file("object.json", object),
            file("request.json", request),
            file("a.npy", &npy::encode(&expected)),
        ];
        for path in cases {
            assert_eq!(
                read(DataType::Float32, &dims, &path),
                Ok(expected.clone()),
                "{path}"
            );
        }
        let broken = [
            file("b.npy", b"\x93NUMPY\x01\x00\xff\xff"),
            file("b.json", b"[1, 2"),
            file(
                "nested.json",
                br#"{"datatype": "FP32", "shape": [1, 3], "data": [[1], [2], [3]]}"#,
            ),
            file("b.png", b"not a picture"),
            file("b.wav", b"RIFF"),
            file("b.npz", b"PK"),
            file("b.pb", b"\xff\xff\xff\xff"),
            folder.join("absent.npy").display().to_string(),
        ];
        for path in broken {
            assert!(read(DataType::Float32, &dims, &path).is_err(), "{path}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
