//! Pictures as tensors `[batch, channels, height, width]`, `[batch, height, width, channels]` or
//! either without the batch.
//!
//! The picture is scaled to the input's height and width where the model fixes them; grey for one
//! channel, RGB for three; from 0 to 1 for floating-point inputs and 0 to 255 for others. What else
//! a model wants (means, deviations) is beyond what a picture can tell: give it a `.npy` then.

use image::DynamicImage;
use image::imageops::FilterType;
use lethe_engine::Tensor;

use super::Declared;
use super::elements::{Number, tensor_of_numbers};

/// How the axes of a picture lie in a tensor.
struct Axes {
    batch: bool,
    channels_first: bool,
    channels: usize,
    height: Option<usize>,
    width: Option<usize>,
}

impl Axes {
    fn of(axes: Option<Vec<Option<usize>>>) -> Result<Self, String> {
        let unknown = vec![None; 4];
        let axes = axes.unwrap_or(unknown);
        let (batch, [a, b, c]) = match axes[..] {
            [n, a, b, c] if n.is_none_or(|n| n == 1) => (true, [a, b, c]),
            [a, b, c] => (false, [a, b, c]),
            // A picture of one channel, without an axis for it.
            [b, c] => {
                return Ok(Self {
                    batch: false,
                    channels_first: true,
                    channels: 0,
                    height: b,
                    width: c,
                });
            }
            _ => return Err(format!("no picture has {} axes", axes.len())),
        };
        let is_channels = |n: Option<usize>| matches!(n, Some(1 | 3));
        let (channels_first, channels, height, width) = match () {
            () if is_channels(a) => (true, a, b, c),
            () if is_channels(c) => (false, c, a, b),
            () if a.is_none() => (true, Some(3), b, c),
            () => return Err("a picture has 1 or 3 channels".into()),
        };
        Ok(Self {
            batch,
            channels_first,
            channels: channels.unwrap_or(3),
            height,
            width,
        })
    }
}

pub(super) fn decode(declared: Declared<'_>, bytes: &[u8]) -> Result<Tensor, String> {
    let axes = Axes::of(declared.axes())?;
    let picture = image::load_from_memory(bytes).map_err(|e| e.to_string())?;
    let picture = scaled(picture, &axes)?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let channels = axes.channels.max(1);
    // Row by row, the channels of a pixel side by side.
    let pixels = match channels {
        1 => picture.into_luma8().into_raw(),
        _ => picture.into_rgb8().into_raw(),
    };
    let pixels = match axes.channels_first {
        false => pixels,
        true => {
            let plane = |c: usize| pixels.iter().skip(c).step_by(channels);
            (0..channels).flat_map(plane).copied().collect()
        }
    };
    let data_type = declared.data_type();
    let number = |&p: &u8| match data_type.is_float() {
        true => Number::Real(f64::from(p) / 255.0),
        false => Number::Integer(p.into()),
    };
    let numbers: Vec<Number> = pixels.iter().map(number).collect();
    let mut shape = match (axes.channels, axes.channels_first) {
        (0, _) => vec![height, width],
        (_, true) => vec![channels, height, width],
        (_, false) => vec![height, width, channels],
    };
    if axes.batch {
        shape.insert(0, 1);
    }
    tensor_of_numbers(data_type, &shape, &numbers)
}

/// Sides up to which pictures are scaled.
const LARGEST: usize = 1 << 14;

fn scaled(picture: DynamicImage, axes: &Axes) -> Result<DynamicImage, String> {
    let height = axes.height.unwrap_or(picture.height() as usize);
    let width = axes.width.unwrap_or(picture.width() as usize);
    if height > LARGEST || width > LARGEST || height == 0 || width == 0 {
        return Err(format!("no picture is scaled to {width} by {height}"));
    }
    let (w, h) = (width as u32, height as u32);
    Ok(match (picture.width(), picture.height()) == (w, h) {
        true => picture,
        false => picture.resize_exact(w, h, FilterType::Triangle),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::{DataType, Dim, ValueInfo, ValueType};

    fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
        let picture = image::RgbImage::from_raw(width, height, pixels.to_vec()).unwrap();
        let mut file = std::io::Cursor::new(Vec::new());
        picture
            .write_to(&mut file, image::ImageFormat::Png)
            .unwrap();
        file.into_inner()
    }

    #[test]
    fn pictures_take_the_form_of_the_input() {
        // Two pixels: red and blue.
        let file = png(2, 1, &[255, 0, 0, 0, 0, 255]);
        let read = |data_type, dims: &[Option<usize>]| {
            let dims = dims
                .iter()
                .map(|d| d.map_or(Dim::Unknown, Dim::Known))
                .collect();
            let info = ValueInfo {
                name: "x".into(),
                value_type: ValueType::tensor(data_type, Some(dims)),
            };
            decode(
                Declared {
                    name: "x",
                    info: &info,
                },
                &file,
            )
        };
        let some = Some;
        let first = read(DataType::Float32, &[None, some(3), None, None]).unwrap();
        assert_eq!(first.shape(), [1, 3, 1, 2]);
        assert_eq!(
            first.as_slice::<f32>().unwrap(),
            [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        );
        let last = read(DataType::Uint8, &[None, None, some(3)]).unwrap();
        assert_eq!(
            (last.shape(), last.bytes()),
            (&[1, 2, 3][..], &[255, 0, 0, 0, 0, 255][..])
        );
        let grey = read(DataType::Float32, &[some(1), some(1), some(4), some(4)]).unwrap();
        assert_eq!(grey.shape(), [1, 1, 4, 4]);
        assert!(read(DataType::Float32, &[some(7)]).is_err());
        assert!(
            read(
                DataType::Float32,
                &[some(1), some(3), some(1 << 40), some(1)]
            )
            .is_err()
        );
    }
}
