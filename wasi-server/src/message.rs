//! What the host says to a cell and what the cell answers, in the form of [`crate::wire`].

use bytes::Bytes;
use lethe_engine::Value;

use crate::handler::{ModelInfo, Request, Response};
use crate::problem::Problem;
use crate::wire::{Reader, WireError, Writer};

/// The model that an image is to hold, and how it is to run.
#[derive(Debug, Clone)]
pub struct Load {
    /// The name that requests use.
    pub name: String,
    /// How the model runs.
    pub options: LoadOptions,
    /// Inputs of a run that warms the model up, so that the image holds its plan and buffers. An
    /// empty list leaves the choice to the guest.
    pub warm_up: Vec<(String, Value)>,
    /// The ONNX file.
    pub model: Bytes,
    /// Files beside the model that hold its external data: path and content.
    pub files: Vec<(String, Bytes)>,
}

/// How a model runs inside a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The same bits on every door and machine.
    pub reproducible: bool,
    /// The graph is left as it is: nothing folded, nothing fused.
    pub as_written: bool,
    /// Keep weights of products as bytes.
    pub quantize: bool,
    /// Hand the hot kernels to the host, which reads operands packed in tiles of so many rows and
    /// columns.
    pub host_tile: Option<(u32, u32)>,
    /// Requests that may come in one [`Call::Together`]: what one run for all of them needs is made
    /// ready. Less than 2 for none.
    pub most_together: u32,
}

/// A request to a cell.
#[derive(Debug, Clone)]
pub enum Call {
    /// An HTTP request for the handler.
    Http(HttpCall),
    /// Inputs by name, for the image's model.
    Infer(Vec<(String, Value)>),
    /// Several of the others, all of one client.
    Together(Vec<Call>),
}

/// A [`Request`] of its own.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// The method, such as `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body's media type.
    pub content_type: Option<String>,
    /// The media types that the client takes.
    pub accept: Option<String>,
    /// Bytes of JSON at the beginning of the body.
    pub json_bytes: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl HttpCall {
    /// The request.
    pub fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            content_type: self.content_type.as_deref(),
            accept: self.accept.as_deref(),
            json_bytes: self.json_bytes,
            body: &self.body,
        }
    }
}

/// A cell's answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Load`]: what was loaded.
    Loaded(ModelInfo),
    /// To [`Call::Http`].
    Http(Response),
    /// To [`Call::Infer`]: outputs by name.
    Outputs(Vec<(String, Value)>),
    /// To [`Call::Together`]: an answer to each, in order.
    Together(Vec<Answer>),
    /// Why there is no other answer.
    Problem(Problem),
}

impl Load {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.text(&self.name);
        writer.u8(self.options.reproducible as u8);
        writer.u8(self.options.as_written as u8);
        writer.u8(self.options.quantize as u8);
        let (rows, columns) = self.options.host_tile.unwrap_or_default();
        writer.u32(rows);
        writer.u32(columns);
        writer.u32(self.options.most_together);
        writer.named_values(
            self.warm_up
                .iter()
                .map(|(name, value)| (name.as_str(), value)),
        );
        writer.length(self.files.len());
        for (path, content) in &self.files {
            writer.text(path);
            writer.blob(content);
        }
        writer.blob(&self.model);
        writer.finish()
    }

    /// Reads the message; model and files are slices of it.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let name = reader.text("a model's name")?;
        let reproducible = reader.u8("a flag")? != 0;
        let as_written = reader.u8("a flag")? != 0;
        let quantize = reader.u8("a flag")? != 0;
        let tile = (reader.u32("a tile")?, reader.u32("a tile")?);
        let host_tile = (tile != (0, 0)).then_some(tile);
        let options = LoadOptions {
            reproducible,
            as_written,
            quantize,
            host_tile,
            most_together: reader.u32("a number of requests")?,
        };
        let warm_up = reader.named_values()?;
        let count = reader.count(8, "a number of files")?;
        let files = (0..count).map(|_| Ok((reader.text("a path")?, reader.blob("a file")?)));
        let files = files.collect::<Result<_, WireError>>()?;
        let model = reader.blob("a model")?;
        reader.end()?;
        Ok(Self {
            name,
            options,
            warm_up,
            model,
            files,
        })
    }
}

impl Call {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(self.room());
        self.write(&mut writer);
        writer.finish()
    }

    /// The message of a [`Call::Http`], without a copy of the body in between.
    pub fn encode_http(request: &Request<'_>) -> Vec<u8> {
        let mut writer = Writer::with_capacity(room_for_http(request));
        write_http(&mut writer, request);
        writer.finish()
    }

    /// Bytes that the message takes, at most.
    fn room(&self) -> usize {
        match self {
            Self::Http(http) => room_for_http(&http.request()),
            Self::Infer(inputs) => {
                let room = inputs.iter().map(|(name, value)| room_for(name, value));
                room.sum::<usize>() + 64
            }
            Self::Together(calls) => calls.iter().map(|call| call.room() + 128).sum(),
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Http(http) => write_http(writer, &http.request()),
            Self::Infer(inputs) => {
                writer.u8(1);
                writer.named_values(inputs.iter().map(|(name, value)| (name.as_str(), value)));
            }
            Self::Together(calls) => write_together(writer, calls, Self::write),
        }
    }

    /// Reads the message; body and tensors are slices of it.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        if let Some(calls) = read_together(&bytes)? {
            let calls = calls.into_iter().map(Self::decode_one);
            return calls.collect::<Result<_, _>>().map(Self::Together);
        }
        Self::decode_one(bytes)
    }

    fn decode_one(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let call = match reader.u8("a kind of call")? {
            0 => Self::Http(HttpCall {
                method: reader.text("a method")?,
                path: reader.text("a path")?,
                content_type: optional_text(&mut reader)?,
                accept: optional_text(&mut reader)?,
                json_bytes: reader.u64("a length")?.checked_sub(1),
                body: reader.blob("a body")?,
            }),
            1 => Self::Infer(reader.named_values()?),
            _ => return Err(reader.error("a call of one request", "another kind")),
        };
        reader.end()?;
        Ok(call)
    }
}

impl Answer {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.finish()
    }

    /// The message, with notes for whoever runs the server: what is worth a warning, and no part of
    /// the answer.
    pub fn encode_noted(&self, notes: &[String]) -> Vec<u8> {
        if notes.is_empty() {
            return self.encode();
        }
        let mut writer = Writer::new();
        writer.u8(NOTED);
        writer.length(notes.len());
        notes.iter().for_each(|note| writer.text(note));
        writer.nested(|writer| self.write(writer));
        writer.finish()
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Loaded(info) => {
                writer.u8(0);
                writer.text(&serde_json::to_string(info).expect("a model's description is JSON"));
            }
            Self::Http(response) => {
                writer.u8(1);
                writer.u32(response.status.into());
                writer.text(&response.content_type);
                writer.u64(response.json_bytes.map_or(0, |bytes| bytes + 1));
                writer.blob(&response.body);
            }
            Self::Outputs(outputs) => {
                writer.u8(2);
                writer.named_values(outputs.iter().map(|(name, value)| (name.as_str(), value)));
            }
            Self::Problem(problem) => {
                writer.u8(3);
                writer.u32(problem.status.into());
                writer.text(&problem.code);
                writer.text(&problem.detail);
            }
            Self::Together(answers) => write_together(writer, answers, Self::write),
        }
    }

    /// Reads the message, without its notes. The host trusts a cell's answer as little as the cell
    /// trusts a request.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let (_, bytes) = read_noted(bytes)?;
        if let Some(answers) = read_together(&bytes)? {
            let answers = answers.into_iter().map(Self::decode_one);
            return answers.collect::<Result<_, _>>().map(Self::Together);
        }
        Self::decode_one(bytes)
    }

    fn decode_one(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8("a kind of answer")? {
            0 => {
                let json = reader.text("a model's description")?;
                Self::Loaded(serde_json::from_str(&json).map_err(|error| WireError {
                    offset: 1,
                    expected: "a model's description",
                    found: error.to_string(),
                })?)
            }
            1 => Self::Http(Response {
                status: status(reader.u32("a status")?),
                content_type: reader.text("a media type")?.into(),
                json_bytes: reader.u64("a length")?.checked_sub(1),
                body: reader.blob("a body")?,
            }),
            2 => Self::Outputs(reader.named_values()?),
            3 => Self::Problem(Problem {
                status: status(reader.u32("a status")?),
                code: reader.text("a code")?.into(),
                detail: reader.text("a detail")?,
                retry_after_s: None,
            }),
            _ => return Err(reader.error("an answer to one request", "another kind")),
        };
        reader.end()?;
        Ok(answer)
    }
}

/// The first byte of several messages in one.
const TOGETHER: u8 = 4;
/// The first byte of notes and the answer after them.
const NOTED: u8 = 5;

/// Whether notes come with an answer.
pub fn is_noted(answer: &[u8]) -> bool {
    answer.first() == Some(&NOTED)
}

/// The notes that come with an answer.
///
/// # Errors
/// When they do not follow the format.
pub fn notes_in(answer: Bytes) -> Result<Vec<String>, WireError> {
    Ok(read_noted(answer)?.0)
}

fn read_noted(bytes: Bytes) -> Result<(Vec<String>, Bytes), WireError> {
    if !is_noted(&bytes) {
        return Ok((Vec::new(), bytes));
    }
    let mut reader = Reader::new(bytes);
    reader.u8("notes")?;
    let count = reader.count(4, "a number of notes")?;
    let notes = (0..count).map(|_| reader.text("a note"));
    let notes = notes.collect::<Result<_, _>>()?;
    let answer = reader.blob("an answer")?;
    reader.end()?;
    Ok((notes, answer))
}

/// Several messages in one.
fn write_together<T>(writer: &mut Writer, messages: &[T], write: impl Fn(&T, &mut Writer)) {
    writer.u8(TOGETHER);
    writer.length(messages.len());
    for message in messages {
        writer.nested(|writer| write(message, writer));
    }
}

/// The messages in one, if there are several.
fn read_together(bytes: &Bytes) -> Result<Option<Vec<Bytes>>, WireError> {
    if bytes.first() != Some(&TOGETHER) {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes.clone());
    reader.u8("several messages")?;
    let count = reader.count(4, "a number of messages")?;
    let messages = (0..count).map(|_| reader.blob("one message of several"));
    let messages = messages.collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Some(messages))
}

fn optional_text(reader: &mut Reader) -> Result<Option<String>, WireError> {
    match reader.u8("whether there is a media type")? {
        0 => Ok(None),
        _ => reader.text("a media type").map(Some),
    }
}

fn room_for_http(request: &Request<'_>) -> usize {
    let optional = [request.content_type, request.accept];
    let optional_bytes: usize = optional.iter().flatten().map(|text| text.len()).sum();
    request.method.len() + request.path.len() + optional_bytes + request.body.len() + 256
}

fn write_http(writer: &mut Writer, request: &Request<'_>) {
    writer.u8(0);
    writer.text(request.method);
    writer.text(request.path);
    for text in [request.content_type, request.accept] {
        writer.u8(text.is_some() as u8);
        if let Some(text) = text {
            writer.text(text);
        }
    }
    writer.u64(request.json_bytes.map_or(0, |bytes| bytes + 1));
    writer.blob(request.body);
}

/// Bytes that a tensor takes in a message, at most; for other values a guess.
fn room_for(name: &str, value: &Value) -> usize {
    let content = match value {
        Value::Tensor(tensor) => tensor.bytes().len() + 8 * tensor.shape().len(),
        _ => 1 << 10,
    };
    name.len() + content + 128
}

/// An HTTP status, 500 for what is none.
fn status(code: u32) -> u16 {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .unwrap_or(500)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::Tensor;

    #[test]
    fn messages_round_trip() {
        let value = Value::Tensor(Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap());
        let load = Load {
            name: "digits".into(),
            options: LoadOptions {
                reproducible: true,
                as_written: true,
                quantize: true,
                host_tile: Some((12, 32)),
                most_together: 8,
            },
            warm_up: vec![("x".into(), value.clone())],
            model: Bytes::from_static(b"model"),
            files: vec![("weights.bin".into(), Bytes::from_static(b"weights"))],
        };
        let found = Load::decode(load.encode().into()).unwrap();
        assert_eq!((found.name, found.options), (load.name, load.options));
        assert_eq!((found.warm_up, found.model), (load.warm_up, load.model));
        assert_eq!(found.files, load.files);

        let call = Call::Http(HttpCall {
            method: "POST".into(),
            path: "/api/v1/infer".into(),
            content_type: None,
            accept: Some("*/*".into()),
            json_bytes: Some(0),
            body: Bytes::from_static(b"{}"),
        });
        match Call::decode(call.encode().into()).unwrap() {
            Call::Http(HttpCall {
                method,
                path,
                content_type: None,
                accept: Some(accept),
                json_bytes: Some(0),
                body,
            }) => {
                assert_eq!(
                    (&*method, &*path, &*accept, &*body),
                    ("POST", "/api/v1/infer", "*/*", &b"{}"[..])
                );
            }
            other => panic!("{other:?}"),
        }
        let problem = Problem::new(404, "LETHE-MODEL-UNKNOWN", "no");
        match Answer::decode(Answer::Problem(problem.clone()).encode().into()).unwrap() {
            Answer::Problem(found) => assert_eq!(found, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn several_messages_in_one_keep_their_order_and_are_not_nested() {
        let infer = |x: f32| Call::Infer(vec![("x".into(), Tensor::scalar(x).into())]);
        let together = Call::Together(vec![infer(1.0), infer(2.0)]);
        let Call::Together(found) = Call::decode(together.encode().into()).unwrap() else {
            panic!("one call");
        };
        let numbers = found.iter().map(|call| match call {
            Call::Infer(inputs) => inputs[0].1.as_tensor().unwrap().as_slice::<f32>().unwrap()[0],
            other => panic!("{other:?}"),
        });
        assert!(numbers.eq([1.0, 2.0]));
        let nested = Call::Together(vec![together]).encode();
        let error = Call::decode(nested.into()).unwrap_err();
        assert_eq!(error.expected, "a call of one request");
    }

    #[test]
    fn notes_come_with_an_answer_and_are_no_part_of_it() {
        let problem = Problem::new(404, "LETHE-MODEL-UNKNOWN", "no");
        let answer = Answer::Problem(problem.clone());
        for notes in [vec![], vec!["one".to_owned(), "another".to_owned()]] {
            let message = Bytes::from(answer.encode_noted(&notes));
            assert_eq!(is_noted(&message), !notes.is_empty());
            assert_eq!(notes_in(message.clone()).unwrap(), notes);
            match Answer::decode(message).unwrap() {
                Answer::Problem(found) => assert_eq!(found, problem),
                other => panic!("{other:?}"),
            }
        }
        let nested = Answer::Together(vec![answer]).encode_noted(&["one".to_owned()]);
        let nested = Bytes::from(nested);
        let found = Answer::decode(nested.clone());
        assert!(matches!(found, Ok(Answer::Together(_))), "{found:?}");
        for len in 1..nested.len() {
            assert!(notes_in(nested.slice(..len)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn truncated_messages_are_errors() {
        let call = Call::Infer(vec![("x".into(), Tensor::scalar(1.0f32).into())]);
        let call = Call::Together(vec![call.clone(), call]).encode();
        for len in 0..call.len() {
            assert!(
                Call::decode(Bytes::copy_from_slice(&call[..len])).is_err(),
                "{len} bytes"
            );
        }
    }
}
