//! Convolution and pooling over two axes.

use super::elementwise::Function;
use super::{reason, require_f32, residual_of};
use crate::device::Request;
use crate::device::webgpu::shader::{Dispatch, Source, shader, workgroups_for};

/// A window over height and width.
struct Window {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Padding before the image, and after it.
    begin: [usize; 2],
    end: [usize; 2],
}

/// So many sizes of at least 0.
fn sizes<const N: usize>(name: &str, list: &[i64]) -> Result<[usize; N], String> {
    let sizes = list.iter().map(|&n| usize::try_from(n).ok());
    let sizes: Option<Vec<usize>> = sizes.collect();
    sizes
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| format!("{name} {list:?}"))
}

impl Window {
    fn of(request: &Request<'_>, kernel: &[usize], size: &[usize]) -> Result<Self, String> {
        let (&[ky, kx], &[_, _]) = (kernel, size) else {
            return Err("only for images of two axes".into());
        };
        let pair = |name: &str, default: usize| -> Result<[usize; 2], String> {
            match request.attributes.optional_ints(name).map_err(reason)? {
                None => Ok([default; 2]),
                Some(list) => sizes(name, list),
            }
        };
        let strides = pair("strides", 1)?;
        let dilations = pair("dilations", 1)?;
        let out = request.output(0)?.shape;
        let needed = |i: usize| {
            let reach = ([ky, kx][i] - 1) * dilations[i] + 1;
            ((out[2 + i] - 1) * strides[i] + reach).saturating_sub(size[i])
        };
        let (begin, end) = match request
            .attributes
            .string_or("auto_pad", "NOTSET")
            .map_err(reason)?
        {
            "NOTSET" => match request.attributes.optional_ints("pads").map_err(reason)? {
                None => ([0; 2], [0; 2]),
                Some(list) => {
                    let [top, left, bottom, right] = sizes("pads", list)?;
                    ([top, left], [bottom, right])
                }
            },
            "VALID" => ([0; 2], [0; 2]),
            "SAME_UPPER" => (
                [needed(0) / 2, needed(1) / 2],
                [needed(0).div_ceil(2), needed(1).div_ceil(2)],
            ),
            "SAME_LOWER" => (
                [needed(0).div_ceil(2), needed(1).div_ceil(2)],
                [needed(0) / 2, needed(1) / 2],
            ),
            other => return Err(format!("auto_pad {other:?}")),
        };
        Ok(Self {
            kernel: [ky, kx],
            strides,
            dilations,
            begin,
            end,
        })
    }

    /// Sizes of what a convolution of an image of these makes.
    fn output(&self, image: &[usize]) -> [usize; 2] {
        [0, 1].map(|i| {
            let reach = self.dilations[i] * (self.kernel[i].max(1) - 1) + 1;
            let padded = image[i] + self.begin[i] + self.end[i];
            padded
                .checked_sub(reach)
                .map_or(0, |n| n / self.strides[i].max(1) + 1)
        })
    }
}

pub(super) fn conv(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    let (x, w, y) = (request.input(0)?, request.input(1)?, request.output(0)?);
    if x.shape.len() != 4 {
        return Err("only for images of two axes".into());
    }
    let window = Window::of(request, &w.shape[2..], &x.shape[2..])?;
    let auto_pad = request.attributes.string_or("auto_pad", "NOTSET");
    let spatial = match auto_pad.map_err(reason)?.starts_with("SAME") {
        true => [0, 1].map(|i| x.shape[2 + i].div_ceil(window.strides[i].max(1))),
        false => window.output(&x.shape[2..]),
    };
    let sum_shape = [x.shape[0], w.shape[0], spatial[0], spatial[1]];
    let residual = residual_of(request, &sum_shape)?;
    let groups = request.attributes.int_or("group", 1).map_err(reason)?;
    let activation = Function::activation(request.attributes)?;
    let mut parameters: Vec<u32> = [
        y.len(),
        x.shape[1],
        x.shape[2],
        x.shape[3],
        y.shape[1],
        y.shape[2],
        y.shape[3],
    ]
    .map(|v| v as u32)
    .into();
    for pair in [
        window.kernel,
        window.strides,
        window.begin,
        window.dilations,
    ] {
        parameters.extend(pair.map(|v| v as u32));
    }
    parameters.extend([
        u32::try_from(groups).map_err(|_| format!("group {groups}"))?,
        activation.a.to_bits(),
        activation.b.to_bits(),
    ]);
    let flag = |input: Option<usize>| f64::from(u8::from(input.is_some()));
    let source = |input: Option<usize>| input.map_or(Source::Absent, Source::Input);
    let bias = request.optional_input(2).map(|_| 2);
    Ok(vec![Dispatch {
        shader: shader!("convolution", ["activation"], false),
        constants: vec![
            ("CODE", activation.code.into()),
            ("HAS_BIAS", flag(bias)),
            ("HAS_RESIDUAL", flag(residual)),
        ],
        parameters,
        inputs: vec![
            Source::Input(0),
            Source::Input(1),
            source(bias),
            source(residual),
        ],
        output: 0,
        workgroups: workgroups_for(y.len()),
    }])
}

pub(super) fn pool(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let kernel = request.attributes.ints("kernel_shape").map_err(reason)?;
    let size = |&k: &i64| usize::try_from(k.max(1)).map_err(|_| format!("kernel_shape {k}"));
    let kernel = kernel.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let shape = request.input(0)?.shape;
    if shape.len() != 4 {
        return Err("only for images of two axes".into());
    }
    let window = Window::of(request, &kernel, &shape[2..])?;
    let count_pad = request
        .attributes
        .flag_or("count_include_pad", false)
        .map_err(reason)?;
    window_pool(request, &window, count_pad)
}

/// The window is the whole image.
pub(super) fn global_pool(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let shape = request.input(0)?.shape;
    let &[_, _, height, width] = shape else {
        return Err("only for images of two axes".into());
    };
    let window = Window {
        kernel: [height, width],
        strides: [1; 2],
        dilations: [1; 2],
        begin: [0; 2],
        end: [0; 2],
    };
    window_pool(request, &window, false)
}

fn window_pool(
    request: &Request<'_>,
    window: &Window,
    count_pad: bool,
) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    if request.outputs[1..].iter().any(Option::is_some) {
        return Err("no kernel that gives indices".into());
    }
    let (x, y) = (request.input(0)?, request.output(0)?);
    let mut parameters: Vec<u32> = [y.len(), x.shape[2], x.shape[3], y.shape[2], y.shape[3]]
        .map(|v| v as u32)
        .into();
    for pair in [
        window.kernel,
        window.strides,
        window.begin,
        window.dilations,
    ] {
        parameters.extend(pair.map(|v| v as u32));
    }
    parameters.extend([0, 1].map(|i| (x.shape[2 + i] + window.end[i]) as u32));
    let flag = |b: bool| f64::from(u8::from(b));
    Ok(vec![Dispatch {
        shader: shader!("pool"),
        constants: vec![
            ("AVERAGE", flag(request.op_type.contains("Average"))),
            ("COUNT_PAD", flag(count_pad)),
        ],
        parameters,
        inputs: vec![Source::Input(0)],
        output: 0,
        workgroups: workgroups_for(y.len()),
    }])
}
