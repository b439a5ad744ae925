//! Weights kept in files beside the model, or read from the model's own file when they are wanted.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;

use super::proto::{self, StringStringEntry};
use crate::error::Error;
use crate::tensor::SharedBytes;

/// The location by which an outline of a model names the model's own file. No file has it: what
/// comes from outside is refused by it, unless whoever reads files gives it a meaning.
pub const ITSELF: &str = ":model";

/// Gives the bytes of files beside a model. The engine reads no files itself.
pub trait ExternalData {
    /// The whole content of the file at `location`, a relative path that has been checked to stay
    /// inside the model's folder.
    ///
    /// # Errors
    /// A reason, where it cannot be had.
    fn open(&self, location: &str) -> Result<Bytes, String>;

    /// A piece of that file, from `offset` on and to its end where there is no `length`, in bytes.
    ///
    /// # Errors
    /// A reason, where it cannot be had.
    fn read(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<SharedBytes, String> {
        let file = self.open(location)?;
        let range = piece_of(location, file.len() as u64, offset, length)?;
        let place = |at: u64| usize::try_from(at).map_err(|error| error.to_string());
        Ok(file.slice(place(range.start)?..place(range.end)?).into())
    }
}

/// The range of a file of `len` bytes that a tensor names.
///
/// # Errors
/// A reason, where the file is shorter.
pub fn piece_of(
    location: &str,
    len: u64,
    offset: u64,
    length: Option<u64>,
) -> Result<Range<u64>, String> {
    let end = match length {
        Some(length) => offset.checked_add(length),
        None => Some(len),
    };
    end.filter(|&end| offset <= end && end <= len)
        .map(|end| offset..end)
        .ok_or_else(|| {
            let wanted = length.map_or("all".into(), |length| format!("{length} bytes"));
            format!("{wanted} from offset {offset} are not in {location:?} of {len} bytes")
        })
}

/// For models that came as bytes alone: every external file is refused.
#[derive(Debug, Clone, Copy)]
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        Err(format!(
            "the model was given without its folder, so {location:?} cannot be read"
        ))
    }
}

/// The piece of an external file that the entries of `TensorProto.external_data` name.
pub(super) fn resolve(
    tensor: &str,
    entries: &[StringStringEntry],
    files: &dyn ExternalData,
) -> Result<SharedBytes, Error> {
    let fail = |reason: String| Error::ExternalData {
        tensor: tensor.into(),
        reason,
    };
    let entry = |key: &str| {
        entries
            .iter()
            .find(|e| e.key.as_deref() == Some(key))
            .and_then(|e| e.value.as_deref())
    };
    let number = |key: &str| -> Result<Option<u64>, Error> {
        entry(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| fail(format!("{key} {text:?} is not a number")))
            })
            .transpose()
    };
    let location = entry("location").ok_or_else(|| fail("it names no location".into()))?;
    if location != ITSELF && !stays_inside(location) {
        return Err(fail(format!(
            "location {location:?} is outside of the model's folder"
        )));
    }
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    files.read(location, offset, length).map_err(fail)
}

/// Gives the data of all tensors memory of their own, whether they are slices of the model's file or
/// come from others: nothing of the files is needed or kept alive afterwards.
///
/// # Errors
/// Where external data cannot be had.
pub fn take_in(model: &mut proto::Model, files: &dyn ExternalData) -> Result<(), Error> {
    attach(model, files)?;
    let mut copy = |tensor: &mut proto::Tensor| {
        if let Some(data) = &mut tensor.raw_data {
            *data = Bytes::copy_from_slice(data);
        }
    };
    tensors_of_model(model, &mut copy);
    Ok(())
}

/// Makes data that come from other files the tensors' own, as slices of those files where they are in memory.
///
/// # Errors
/// Where external data cannot be had.
pub(crate) fn attach(model: &mut proto::Model, files: &dyn ExternalData) -> Result<(), Error> {
    let mut result = Ok(());
    let mut take = |tensor: &mut proto::Tensor| {
        if result.is_err() {
            return;
        }
        if tensor.data_location == Some(1) {
            let name = tensor.name.as_deref().unwrap_or_default();
            match resolve(name, &tensor.external_data, files) {
                Ok(bytes) => tensor.raw_data = Some(bytes.into()),
                Err(error) => return result = Err(error),
            }
            tensor.external_data.clear();
            tensor.data_location = None;
        }
    };
    tensors_of_model(model, &mut take);
    result
}

/// The files beside a model that its tensors name, wherever they are in it.
pub fn locations(model: &mut proto::Model) -> BTreeSet<String> {
    let mut locations = BTreeSet::new();
    tensors_of_model(model, &mut |tensor| {
        let entries = tensor.external_data.iter();
        let named = entries.filter(|entry| entry.key.as_deref() == Some("location"));
        let named = named.filter_map(|entry| entry.value.clone());
        locations.extend(named.filter(|location| location != ITSELF));
    });
    locations
}

fn tensors_of_model(model: &mut proto::Model, take: &mut dyn FnMut(&mut proto::Tensor)) {
    if let Some(graph) = &mut model.graph {
        tensors_of_graph(graph, take);
    }
    for function in &mut model.functions {
        tensors_of_attributes(&mut function.attribute_proto, take);
        tensors_of_nodes(&mut function.node, take);
    }
}

fn tensors_of_graph(graph: &mut proto::Graph, take: &mut dyn FnMut(&mut proto::Tensor)) {
    graph.initializer.iter_mut().for_each(&mut *take);
    tensors_of_sparse(graph.sparse_initializer.iter_mut(), take);
    tensors_of_nodes(&mut graph.node, take);
}

fn tensors_of_nodes(nodes: &mut [proto::Node], take: &mut dyn FnMut(&mut proto::Tensor)) {
    for node in nodes {
        tensors_of_attributes(&mut node.attribute, take);
    }
}

fn tensors_of_attributes(
    attributes: &mut [proto::Attribute],
    take: &mut dyn FnMut(&mut proto::Tensor),
) {
    for attribute in attributes {
        let one = attribute.t.iter_mut();
        one.chain(&mut attribute.tensors).for_each(&mut *take);
        let one = attribute.sparse_tensor.iter_mut();
        tensors_of_sparse(one.chain(&mut attribute.sparse_tensors), take);
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            tensors_of_graph(graph, take);
        }
    }
}

fn tensors_of_sparse<'a>(
    tensors: impl Iterator<Item = &'a mut proto::SparseTensor>,
    take: &mut dyn FnMut(&mut proto::Tensor),
) {
    let parts = tensors.flat_map(|sparse| sparse.values.iter_mut().chain(&mut sparse.indices));
    parts.for_each(take);
}

/// Whether a relative path has no way out: no root, drive, `..` or empty part.
fn stays_inside(location: &str) -> bool {
    !location.contains(['\\', ':', '\0'])
        && location
            .split('/')
            .all(|part| !part.is_empty() && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;
    impl ExternalData for One {
        fn open(&self, _: &str) -> Result<Bytes, String> {
            Ok(Bytes::from_static(b"0123456789"))
        }
    }

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntry> {
        let entry = |&(k, v): &(&str, &str)| StringStringEntry {
            key: Some(k.into()),
            value: Some(v.into()),
        };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn a_model_takes_in_what_lies_outside_wherever_it_is_named() {
        let outside = |location: &str| proto::Tensor {
            data_location: Some(1),
            external_data: entries(&[("location", location), ("offset", "3"), ("length", "2")]),
            ..Default::default()
        };
        let graph = |tensor: proto::Tensor| proto::Graph {
            initializer: vec![tensor],
            ..Default::default()
        };
        let sparse = |tensor: proto::Tensor| proto::SparseTensor {
            values: Some(tensor.clone()),
            indices: Some(tensor),
            ..Default::default()
        };
        let model = |tensor: &proto::Tensor| {
            let attribute = proto::Attribute {
                t: Some(tensor.clone()),
                tensors: vec![tensor.clone()],
                g: Some(graph(tensor.clone())),
                graphs: vec![graph(tensor.clone())],
                sparse_tensor: Some(sparse(tensor.clone())),
                sparse_tensors: vec![sparse(tensor.clone())],
                ..Default::default()
            };
            let node = proto::Node {
                attribute: vec![attribute.clone()],
                ..Default::default()
            };
            proto::Model {
                graph: Some(proto::Graph {
                    node: vec![node.clone()],
                    sparse_initializer: vec![sparse(tensor.clone())],
                    ..graph(tensor.clone())
                }),
                functions: vec![proto::Function {
                    node: vec![node],
                    attribute_proto: vec![attribute],
                    ..Default::default()
                }],
                ..Default::default()
            }
        };
        let inside = proto::Tensor {
            raw_data: Some(Bytes::from_static(b"34")),
            ..Default::default()
        };
        assert_eq!(
            locations(&mut model(&outside("w"))),
            ["w".to_owned()].into()
        );
        let mut taken = model(&outside("w"));
        take_in(&mut taken, &One).unwrap();
        assert!(taken == model(&inside));
        assert!(take_in(&mut model(&outside("../w")), &One).is_err());
        assert!(take_in(&mut taken, &NoExternalData).is_ok());
        // What was a slice of the model's file is one no more.
        let file = Bytes::from(vec![1; 7]);
        let slice = proto::Tensor {
            raw_data: Some(file.slice(1..3)),
            ..Default::default()
        };
        let mut taken = model(&slice);
        take_in(&mut taken, &NoExternalData).unwrap();
        assert!(taken == model(&slice));
        drop(slice);
        assert!(file.is_unique());
    }

    #[test]
    fn slices_are_taken_and_escapes_refused() {
        let take = |pairs: &[(&str, &str)]| resolve("w", &entries(pairs), &One);
        let good = take(&[("location", "w.data"), ("offset", "2"), ("length", "3")]);
        assert_eq!(good.unwrap()[..], b"234"[..]);
        assert_eq!(take(&[("location", "a/b.data")]).unwrap().len(), 10);
        for bad in [
            "../w",
            "/etc/passwd",
            "a//b",
            "",
            "c:w",
            "a/../../b",
            "a\\b",
        ] {
            assert!(take(&[("location", bad)]).is_err(), "{bad:?}");
        }
        for (offset, length) in [
            ("11", "0"),
            ("5", "6"),
            ("x", "1"),
            ("1", "18446744073709551615"),
        ] {
            let pairs = [("location", "w"), ("offset", offset), ("length", length)];
            assert!(take(&pairs).is_err(), "{offset} {length}");
        }
    }
}
