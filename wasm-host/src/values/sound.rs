//! Sound files: samples from -1 to 1, the channels averaged into one.

use hound::{SampleFormat, WavReader};
use lethe_engine::Tensor;

use super::Declared;
use super::elements::{Number, tensor_of_numbers};

pub(super) fn decode(declared: Declared<'_>, bytes: &[u8]) -> Result<Tensor, String> {
    let mut reader = WavReader::new(bytes).map_err(|e| e.to_string())?;
    let format = reader.spec();
    let samples: Vec<f64> = match format.sample_format {
        SampleFormat::Float => reader
            .samples::<f32>()
            .map(|s| s.map(f64::from))
            .collect::<Result<_, _>>(),
        SampleFormat::Int => {
            let full = f64::from(1u32 << (format.bits_per_sample.clamp(1, 32) - 1));
            let samples = reader.samples::<i32>();
            samples.map(|s| s.map(|s| f64::from(s) / full)).collect()
        }
    }
    .map_err(|e| e.to_string())?;
    let channels = usize::from(format.channels.max(1));
    let mono: Vec<Number> = samples
        .chunks_exact(channels)
        .map(|frame| Number::Real(frame.iter().sum::<f64>() / channels as f64))
        .collect();
    tensor_of_numbers(
        declared.data_type(),
        &declared.shape_of_row(mono.len()),
        &mono,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::{DataType, Dim, ValueInfo, ValueType};

    #[test]
    fn channels_are_averaged() {
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 16000,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut file = std::io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        for sample in [16384i16, -16384, 16384, 0] {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        let dims = [Dim::Unknown, Dim::Unknown].into_iter().collect();
        let info = ValueInfo {
            name: "x".into(),
            value_type: ValueType::tensor(DataType::Float32, Some(dims)),
        };
        let tensor = decode(
            Declared {
                name: "x",
                info: &info,
            },
            file.get_ref(),
        )
        .unwrap();
        assert_eq!(tensor.shape(), [1, 2]);
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [0.0, 0.25]);
    }
}
