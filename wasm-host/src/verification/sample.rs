//! Samples of outputs too large to be kept: shape, statistics and every `stride`-th element.

use lethe_engine::Value;

use super::comparison::{Difference, Tolerance, index_of};
use crate::values::Elements;

/// An `output_<i>.json`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(super) struct Sample {
    /// Name of the output.
    #[serde(default)]
    pub(super) name: String,
    /// numpy's name of the element type.
    dtype: String,
    shape: Vec<usize>,
    min: f64,
    max: f64,
    mean: f64,
    rms: f64,
    /// Distance between the elements kept, in the flattened output.
    stride: usize,
    /// `values[j]` is the element `j * stride`.
    values: Vec<f64>,
}

impl Sample {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let sample: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let len = lethe_engine::tensor::element_count(&sample.shape);
        let last = sample
            .values
            .len()
            .saturating_sub(1)
            .checked_mul(sample.stride);
        match (len, last) {
            (Some(len), Some(last)) if last < len || sample.values.is_empty() => Ok(sample),
            _ => Err(format!(
                "{} values at a stride of {} do not fit shape {:?}",
                sample.values.len(),
                sample.stride,
                sample.shape
            )),
        }
    }

    pub(super) fn compare(&self, found: &Value, tolerance: &Tolerance) -> Result<(), Difference> {
        let numpy_name = |value: &Value| match value {
            Value::Tensor(tensor) => numpy_name(tensor.data_type().name()).to_owned(),
            other => other.kind().to_string(),
        };
        let tensor = match found {
            Value::Tensor(tensor) if numpy_name(found) == self.dtype => tensor,
            other => {
                return Err(Difference::Kind {
                    expected: self.dtype.clone(),
                    found: numpy_name(other),
                });
            }
        };
        if tensor.shape() != self.shape {
            return Err(Difference::Shape {
                expected: self.shape.clone(),
                found: tensor.shape().into(),
            });
        }
        let elements = Elements::of(tensor);
        let exact = !matches!(elements, Elements::Reals(_));
        let Some(found) = elements.to_reals() else {
            return Err(Difference::Kind {
                expected: "numbers".into(),
                found: tensor.data_type().to_string(),
            });
        };
        let passes = |expected: f64, found: f64| match exact {
            true => expected == found,
            false => tolerance.allows(expected, found, self.rms),
        };
        let samples = self
            .values
            .iter()
            .zip(found.iter().step_by(self.stride.max(1)));
        let off: Vec<usize> = samples
            .enumerate()
            .filter(|&(_, (&expected, &found))| !passes(expected, found))
            .map(|(j, _)| j)
            .collect();
        if let Some(&first) = off.first()
            && !tolerance.allows_outliers(off.len(), self.values.len())
        {
            return Err(Difference::Elements {
                count: off.len(),
                total: self.values.len(),
                index: index_of(first * self.stride, &self.shape),
                expected: self.values[first].to_string(),
                found: elements.show(first * self.stride).to_string(),
                largest: " (of the elements sampled)".into(),
            });
        }
        self.compare_statistics(&found, tolerance)
    }

    /// Elements between the samples cannot be checked one by one, but statistics see most ways to
    /// get them wrong.
    fn compare_statistics(&self, found: &[f64], tolerance: &Tolerance) -> Result<(), Difference> {
        let count = found.len().max(1) as f64;
        let statistics = [
            (
                "min",
                self.min,
                found.iter().copied().fold(f64::INFINITY, f64::min),
            ),
            (
                "max",
                self.max,
                found.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ),
            ("mean", self.mean, found.iter().sum::<f64>() / count),
            (
                "rms",
                self.rms,
                (found.iter().map(|x| x * x).sum::<f64>() / count).sqrt(),
            ),
        ];
        for (what, expected, found) in statistics {
            // The statistics are written with few digits; with outliers allowed, extremes may move.
            let written = 1e-5 * (expected.abs() + self.rms);
            let extreme = what == "min" || what == "max";
            let skip = extreme && tolerance.outliers > 0.0;
            let close = (found - expected).abs() <= written;
            if !skip && !close && !tolerance.allows(expected, found, self.rms) {
                return Err(Difference::Fact {
                    what,
                    expected: expected.to_string(),
                    found: found.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// numpy's name of an ONNX element type.
fn numpy_name(onnx_name: &str) -> &str {
    match onnx_name {
        "float" => "float32",
        "double" => "float64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::Tensor;

    const SAMPLE: &[u8] = br#"{"name": "y", "dtype": "float32", "shape": [2, 3], "stride": 2,
        "count": 6, "min": 1, "max": 6, "mean": 3.5, "rms": 3.8944, "values": [1, 3, 5]}"#;

    #[test]
    fn samples_see_elements_and_statistics() {
        let sample = Sample::parse(SAMPLE).unwrap();
        let tensor =
            |elements: [f32; 6]| Value::from(Tensor::from_slice(&[2, 3], &elements).unwrap());
        let tolerance = Tolerance::default();
        let compare = |elements| sample.compare(&tensor(elements), &tolerance);
        assert_eq!(compare([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Ok(()));
        let sampled = compare([1.0, 2.0, 3.5, 4.0, 5.0, 6.0]).unwrap_err();
        assert!(sampled.to_string().contains("first [0, 2]"), "{sampled}");
        let between = compare([1.0, 2.0, 3.0, 4.5, 5.0, 6.0]).unwrap_err();
        assert!(between.to_string().starts_with("mean"), "{between}");
        let other = Tensor::from_slice(&[3, 2], &[0.0f32; 6]).unwrap();
        assert!(sample.compare(&other.into(), &tolerance).is_err());
        let double = Tensor::from_slice(&[2, 3], &[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert!(sample.compare(&double.into(), &tolerance).is_err());
    }

    #[test]
    fn samples_that_do_not_fit_their_shape_are_refused() {
        let text = String::from_utf8_lossy(SAMPLE).replace("\"stride\": 2", "\"stride\": 3");
        assert!(Sample::parse(text.as_bytes()).is_err());
        assert!(Sample::parse(b"{}").is_err());
    }
}
