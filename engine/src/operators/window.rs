//! The attributes of operators that slide a window: convolutions and pools.
//!
//! `kernel_shape`, `strides`, `dilations`, `pads` (all begins, then all ends) and `auto_pad`, which
//! says how much padding there is: as `pads` say (`NOTSET`), none (`VALID`), or so much that the
//! output has `ceil(size / stride)` elements, an odd one at the end (`SAME_UPPER`) or at the
//! beginning (`SAME_LOWER`).

use smallvec::SmallVec;

use super::axes::at_most;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::convolution::{GeometryError, Window};

/// One number for each spatial axis, or two for padding; those of three axes stay inline.
pub(super) type Sizes = SmallVec<[usize; 6]>;

/// How padding is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AutoPad {
    /// By `pads`.
    Given,
    /// None.
    Valid,
    /// For `ceil(size / stride)` outputs, odd padding at the end.
    SameUpper,
    /// For `ceil(size / stride)` outputs, odd padding at the beginning.
    SameLower,
}

/// The attributes as they are written.
#[derive(Debug, Clone)]
pub(super) struct WindowAttributes {
    pub(super) kernel: Option<Sizes>,
    strides: Option<Sizes>,
    dilations: Option<Sizes>,
    pads: Option<Sizes>,
    pub(super) auto_pad: AutoPad,
}

/// A window with one number for each spatial axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SizedWindow {
    pub(super) kernel: Sizes,
    pub(super) strides: Sizes,
    pub(super) dilations: Sizes,
    pub(super) begin: Sizes,
    pub(super) end: Sizes,
}

/// Sizes, strides or pads, as [`at_most`] has each; `None` where one is below 0.
pub(super) fn counts(list: &[i64]) -> Option<Sizes> {
    let count = |&n: &i64| (n >= 0).then(|| at_most(n));
    list.iter().map(count).collect()
}

fn sizes(node: &Attributes, name: &str) -> Result<Option<Sizes>, OpError> {
    let Some(list) = node.optional_ints(name)? else {
        return Ok(None);
    };
    counts(list).map(Some).ok_or_else(|| OpError::Attribute {
        name: name.into(),
        expected: "numbers of at least 0".into(),
        found: format!("{list:?}"),
    })
}

impl WindowAttributes {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let auto_pad = match node.string_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => AutoPad::Given,
            "VALID" => AutoPad::Valid,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => {
                return Err(OpError::Attribute {
                    name: "auto_pad".into(),
                    expected: "NOTSET, VALID, SAME_UPPER or SAME_LOWER".into(),
                    found: other.into(),
                });
            }
        };
        Ok(Self {
            kernel: sizes(node, "kernel_shape")?,
            strides: sizes(node, "strides")?,
            dilations: sizes(node, "dilations")?,
            pads: sizes(node, "pads")?,
            auto_pad,
        })
    }

    /// The window over an image of these spatial sizes. `kernel` is that of the weights; without
    /// it the attribute counts.
    ///
    /// # Errors
    /// When a list has another length than there are spatial axes, or the kernels differ.
    pub(super) fn over(
        &self,
        spatial: &[usize],
        kernel: Option<&[usize]>,
    ) -> Result<SizedWindow, OpError> {
        let rank = spatial.len();
        let list = |name: &str, list: &Option<Sizes>, length: usize, default: usize| {
            let list = list.clone();
            let list = list.unwrap_or_else(|| Sizes::from_elem(default, length));
            if list.len() == length {
                return Ok(list);
            }
            Err(OpError::Attribute {
                name: name.into(),
                expected: format!("{length} numbers"),
                found: format!("{} numbers", list.len()),
            })
        };
        let kernel = match (kernel, &self.kernel) {
            (Some(kernel), Some(given)) if kernel != &given[..] => {
                return Err(OpError::Attribute {
                    name: "kernel_shape".into(),
                    expected: format!("{kernel:?}, as the weights have it"),
                    found: format!("{given:?}"),
                });
            }
            (Some(kernel), _) => Sizes::from_slice(kernel),
            (None, Some(_)) => list("kernel_shape", &self.kernel, rank, 1)?,
            (None, None) => {
                return Err(OpError::MissingAttribute {
                    name: "kernel_shape".into(),
                });
            }
        };
        let strides = list("strides", &self.strides, rank, 1)?;
        let dilations = list("dilations", &self.dilations, rank, 1)?;
        let pads = match self.auto_pad {
            AutoPad::Given => list("pads", &self.pads, 2 * rank, 0)?,
            _ => Sizes::from_elem(0, 2 * rank),
        };
        let mut window = SizedWindow {
            begin: Sizes::from_slice(&pads[..rank]),
            end: Sizes::from_slice(&pads[rank..]),
            kernel,
            strides,
            dilations,
        };
        if matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower) {
            for (axis, &size) in spatial.iter().enumerate() {
                let stride = window.strides[axis].max(1);
                let covered = (size.div_ceil(stride).max(1) - 1).saturating_mul(stride);
                let needed = covered.saturating_add(window.extent(axis));
                window.split_padding(axis, needed.saturating_sub(size), self.auto_pad);
            }
        }
        Ok(window)
    }
}

impl SizedWindow {
    /// Elements that the window spans along an axis.
    pub(super) fn extent(&self, axis: usize) -> usize {
        let gaps = self.kernel[axis].saturating_sub(1);
        gaps.saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Divides padding over both sides of an axis.
    pub(super) fn split_padding(&mut self, axis: usize, total: usize, auto_pad: AutoPad) {
        let (smaller, larger) = (total / 2, total - total / 2);
        (self.begin[axis], self.end[axis]) = match auto_pad {
            AutoPad::SameUpper => (smaller, larger),
            _ => (larger, smaller),
        };
    }

    /// The window as kernels take it.
    pub(super) fn as_window(&self) -> Window<'_> {
        Window {
            kernel: &self.kernel,
            strides: &self.strides,
            dilations: &self.dilations,
            pads_begin: &self.begin,
            pads_end: &self.end,
        }
    }
}

/// What a kernel says of sizes, as an operator's error.
pub(super) fn geometry_error(image: &[usize]) -> impl Fn(GeometryError) -> OpError + '_ {
    move |error| {
        let found = format!("{image:?}: {error}");
        OpError::shape("X", "[N, C, spatial..] that fits the window", found)
    }
}
