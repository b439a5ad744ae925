//! Weights kept in files beside the model.

use bytes::Bytes;

use super::proto::StringStringEntry;
use crate::error::Error;

/// Gives the bytes of files beside a model. The engine reads no files itself.
pub trait ExternalData {
    /// The whole content of the file at `location`, a relative path that has been checked to stay
    /// inside the model's folder.
    ///
    /// # Errors
    /// A reason, where it cannot be had.
    fn open(&self, location: &str) -> Result<Bytes, String>;
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
) -> Result<Bytes, Error> {
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
    let number = |key: &str| -> Result<Option<usize>, Error> {
        entry(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| fail(format!("{key} {text:?} is not a number")))
            })
            .transpose()
    };
    let location = entry("location").ok_or_else(|| fail("it names no location".into()))?;
    if !stays_inside(location) {
        return Err(fail(format!(
            "location {location:?} is outside of the model's folder"
        )));
    }
    let file = files.open(location).map_err(fail)?;
    let offset = number("offset")?.unwrap_or(0);
    let end = match number("length")? {
        Some(length) => offset.checked_add(length),
        None => Some(file.len()),
    };
    match end {
        Some(end) if offset <= end && end <= file.len() => Ok(file.slice(offset..end)),
        _ => Err(fail(format!(
            "offset {offset} and length {:?} do not fit {location:?} of {} bytes",
            number("length")?,
            file.len()
        ))),
    }
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
    fn slices_are_taken_and_escapes_refused() {
        let take = |pairs: &[(&str, &str)]| resolve("w", &entries(pairs), &One);
        let good = take(&[("location", "w.data"), ("offset", "2"), ("length", "3")]);
        assert_eq!(good.as_deref(), Ok(&b"234"[..]));
        assert_eq!(take(&[("location", "a/b.data")]).map(|b| b.len()), Ok(10));
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
