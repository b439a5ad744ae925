//! Sizes of a convolution or pooling window over up to three spatial dimensions.

/// The sizes of a convolution: inputs, windows and outputs as depth, height, width.
///
/// Fewer dimensions are filled up with ones in front, so that every kernel is written for three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub batch: usize,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of an output.
    pub out_channels: usize,
    /// Independent groups that the channels are divided into.
    pub groups: usize,
    /// Spatial size of an image.
    pub input: [usize; 3],
    /// Taps of a window.
    pub kernel: [usize; 3],
    /// Distance of two windows.
    pub strides: [usize; 3],
    /// Distance of two taps.
    pub dilations: [usize; 3],
    /// Zeros before each dimension.
    pub pads_begin: [usize; 3],
    /// Zeros after each dimension.
    pub pads_end: [usize; 3],
    /// Spatial size of an output.
    pub output: [usize; 3],
}

/// Sizes that do not make a convolution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// More than three spatial dimensions, or a list of another length.
    #[error("{what} has {found} spatial dimensions, expected {expected}")]
    Rank {
        /// Which list.
        what: &'static str,
        /// What would fit.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A stride, dilation, group count or kernel size of zero.
    #[error("{what} must not be 0")]
    Zero {
        /// Which number.
        what: &'static str,
    },
    /// Channels do not divide into groups, or differ between image and weights.
    #[error(
        "{in_channels} input and {out_channels} output channels do not fit {groups} groups of \
         {group_channels} input channels"
    )]
    Channels {
        /// Channels of the image.
        in_channels: usize,
        /// Channels of the output.
        out_channels: usize,
        /// Groups.
        groups: usize,
        /// Input channels that the weights have for a group.
        group_channels: usize,
    },
    /// The window does not fit into the padded input.
    #[error("window of {window} elements exceeds the padded input of {padded}")]
    Window {
        /// Extent of the dilated window.
        window: usize,
        /// Extent of the padded input.
        padded: usize,
    },
    /// Padding that makes far more of an image than there is of it.
    #[error("{input} elements become {padded} by padding")]
    Padding {
        /// Elements of an image with the padding that windows reach.
        padded: u128,
        /// Elements without.
        input: u128,
    },
    /// A size is beyond what can be addressed.
    #[error("sizes overflow")]
    Overflow,
}

/// Elements of a padded image that any image may have.
const MOST_PADDED: u128 = 1 << 26;

/// Window parameters as an operator has them, one number for each spatial dimension.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Taps.
    pub kernel: &'a [usize],
    /// Distance of two windows.
    pub strides: &'a [usize],
    /// Distance of two taps.
    pub dilations: &'a [usize],
    /// Padding before each dimension.
    pub pads_begin: &'a [usize],
    /// Padding after each dimension.
    pub pads_end: &'a [usize],
}

impl Window<'_> {
    fn check(&self, rank: usize) -> Result<(), GeometryError> {
        if rank == 0 || rank > 3 {
            return Err(GeometryError::Rank {
                what: "input",
                expected: 3,
                found: rank,
            });
        }
        let lists = [
            ("kernel", self.kernel),
            ("strides", self.strides),
            ("dilations", self.dilations),
            ("pads", self.pads_begin),
            ("pads", self.pads_end),
        ];
        for (what, list) in lists {
            if list.len() != rank {
                return Err(GeometryError::Rank {
                    what,
                    expected: rank,
                    found: list.len(),
                });
            }
        }
        for (what, list) in &lists[..3] {
            if list.contains(&0) {
                return Err(GeometryError::Zero { what });
            }
        }
        Ok(())
    }
}

/// Fills up with `one` in front.
fn three(list: &[usize], one: usize) -> [usize; 3] {
    let mut sizes = [one; 3];
    sizes[3 - list.len()..].copy_from_slice(list);
    sizes
}

impl Geometry {
    /// The geometry of `x: [N, C, spatial…]`, `w: [M, C / groups, kernel…]` →
    /// `y: [N, M, output…]`.
    ///
    /// # Errors
    /// If the numbers do not fit each other.
    pub fn convolution(
        image: &[usize],
        weights: &[usize],
        window: Window<'_>,
        groups: usize,
    ) -> Result<Geometry, GeometryError> {
        let rank = image.len().saturating_sub(2);
        window.check(rank)?;
        if weights.len() != image.len() {
            let found = weights.len().saturating_sub(2);
            return Err(GeometryError::Rank {
                what: "weights",
                expected: rank,
                found,
            });
        }
        if groups == 0 {
            return Err(GeometryError::Zero { what: "group" });
        }
        let (in_channels, out_channels, group_channels) = (image[1], weights[0], weights[1]);
        if group_channels.checked_mul(groups) != Some(in_channels)
            || !out_channels.is_multiple_of(groups)
        {
            return Err(GeometryError::Channels {
                in_channels,
                out_channels,
                groups,
                group_channels,
            });
        }
        let mut geometry = Self::with_window(image, &window, out_channels, groups);
        for i in 0..3 {
            let (padded, extent) = geometry.padded_and_extent(i)?;
            geometry.output[i] = (padded - extent) / geometry.strides[i] + 1;
        }
        geometry
            .without_idle_steps()?
            .check_sizes()?
            .check_padding()
    }

    /// The geometry of pooling `x: [N, C, spatial…]` → `y: [N, C, output…]`. With `round_up`
    /// (`ceil_mode`) a last window that starts within the input or its padding before may reach
    /// beyond the padded input.
    ///
    /// # Errors
    /// If the numbers do not fit each other.
    pub fn pooling(
        image: &[usize],
        window: Window<'_>,
        round_up: bool,
    ) -> Result<Geometry, GeometryError> {
        window.check(image.len().saturating_sub(2))?;
        let mut geometry = Self::with_window(image, &window, image[1], image[1]);
        for i in 0..3 {
            let (padded, extent) = geometry.padded_and_extent(i)?;
            let stride = geometry.strides[i];
            let mut windows = (padded - extent) / stride + 1;
            if round_up && !(padded - extent).is_multiple_of(stride) {
                let next_start = windows * stride;
                if next_start < geometry.input[i] + geometry.pads_begin[i] {
                    windows += 1;
                }
            }
            geometry.output[i] = windows;
        }
        geometry
            .without_idle_steps()?
            .check_sizes()?
            .check_padding()
    }

    /// The geometry of a transposed convolution `x: [N, C, spatial…]`,
    /// `w: [C, M / groups, kernel…]` → `y: [N, M, output…]` with a given output size. `pads_end`
    /// is not used: the output size implies it.
    ///
    /// # Errors
    /// If the numbers do not fit each other.
    pub fn transposed(
        image: &[usize],
        weights: &[usize],
        window: Window<'_>,
        groups: usize,
        output: &[usize],
    ) -> Result<Geometry, GeometryError> {
        let rank = image.len().saturating_sub(2);
        window.check(rank)?;
        for (what, found) in [
            ("weights", weights.len().saturating_sub(2)),
            ("output", output.len()),
        ] {
            if found != rank {
                return Err(GeometryError::Rank {
                    what,
                    expected: rank,
                    found,
                });
            }
        }
        if groups == 0 {
            return Err(GeometryError::Zero { what: "group" });
        }
        let (in_channels, group_out) = (image[1], weights[1]);
        let out_channels = group_out
            .checked_mul(groups)
            .ok_or(GeometryError::Overflow)?;
        if weights[0] != in_channels || !in_channels.is_multiple_of(groups) {
            return Err(GeometryError::Channels {
                in_channels,
                out_channels,
                groups,
                group_channels: weights[0] / groups,
            });
        }
        let mut geometry = Self::with_window(image, &window, out_channels, groups);
        geometry.output = three(output, 1);
        geometry.check_sizes()
    }

    fn with_window(
        image: &[usize],
        window: &Window<'_>,
        out_channels: usize,
        groups: usize,
    ) -> Geometry {
        Geometry {
            batch: image[0],
            in_channels: image[1],
            out_channels,
            groups,
            input: three(&image[2..], 1),
            kernel: three(window.kernel, 1),
            strides: three(window.strides, 1),
            dilations: three(window.dilations, 1),
            pads_begin: three(window.pads_begin, 0),
            pads_end: three(window.pads_end, 0),
            output: [1; 3],
        }
    }

    /// Extents of the padded input and of the window in dimension `i`.
    fn padded_and_extent(&self, i: usize) -> Result<(usize, usize), GeometryError> {
        let padded = self.input[i]
            .checked_add(self.pads_begin[i])
            .and_then(|x| x.checked_add(self.pads_end[i]))
            .ok_or(GeometryError::Overflow)?;
        let window = (self.kernel[i] - 1)
            .checked_mul(self.dilations[i])
            .and_then(|x| x.checked_add(1))
            .ok_or(GeometryError::Overflow)?;
        if window > padded {
            return Err(GeometryError::Window { window, padded });
        }
        Ok((padded, window))
    }

    /// Steps that nobody takes are small: those between taps where there is one, and between windows where
    /// there is one, but not so small that there would be another. A geometry that is made of this one's
    /// numbers is this one again.
    fn without_idle_steps(mut self) -> Result<Self, GeometryError> {
        for i in 0..3 {
            if self.output[i] == 1 {
                let (padded, window) = self.padded_and_extent(i)?;
                self.strides[i] = self.strides[i].min(padded - window + 1);
            }
            if self.kernel[i] == 1 {
                self.dilations[i] = 1;
            }
        }
        Ok(self)
    }

    /// Rejects padding beyond all reason: kernels make padded copies.
    fn check_padding(self) -> Result<Self, GeometryError> {
        let elements = |channels: usize, sizes: [usize; 3]| -> u128 {
            let sizes = sizes.iter().map(|&size| size as u128);
            channels as u128 * sizes.product::<u128>()
        };
        let input = elements(self.in_channels, self.input);
        let output = elements(self.out_channels, self.output);
        let padded = elements(self.in_channels, self.reach());
        if padded > MOST_PADDED.max(64 * (input + output)) {
            return Err(GeometryError::Padding { padded, input });
        }
        Ok(self)
    }

    /// Rejects sizes whose products overflow, so that kernels need not check.
    fn check_sizes(self) -> Result<Geometry, GeometryError> {
        let product = |sizes: &[usize]| {
            sizes
                .iter()
                .try_fold(16usize, |product, &size| product.checked_mul(size.max(1)))
                .filter(|&product| product < isize::MAX as usize)
                .ok_or(GeometryError::Overflow)
        };
        let [d, h, w] = self.input;
        product(&[self.batch, self.in_channels, d, h, w])?;
        let [d, h, w] = self.output;
        product(&[self.batch, self.out_channels, d, h, w])?;
        let [d, h, w] = self.kernel;
        product(&[self.in_channels, self.out_channels, d, h, w])?;
        let mut extents = [0; 3];
        for (i, extent) in extents.iter_mut().enumerate() {
            *extent = self.output[i]
                .checked_mul(self.strides[i])
                .and_then(|x| x.checked_add(self.kernel[i].checked_mul(self.dilations[i])?))
                .and_then(|x| x.checked_add(self.pads_begin[i]))
                .and_then(|x| x.checked_add(self.input[i]))
                .ok_or(GeometryError::Overflow)?;
        }
        product(&[self.in_channels, extents[0], extents[1], extents[2]])?;
        Ok(self)
    }

    /// Input channels of a group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of a group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Elements of a channel of the input.
    pub fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of a channel of the output.
    pub fn output_len(&self) -> usize {
        self.output.iter().product()
    }

    /// Extents of the part of a channel and its padding that the windows reach.
    pub fn reach(&self) -> [usize; 3] {
        [0, 1, 2].map(|i| {
            (self.output[i].max(1) - 1) * self.strides[i]
                + (self.kernel[i] - 1) * self.dilations[i]
                + 1
        })
    }

    /// Taps of a window.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether each output element depends on one position of the input, the same one.
    pub(super) fn is_pointwise(&self) -> bool {
        self.taps() == 1
            && self.strides == [1; 3]
            && self.output == self.input
            && self.pads_begin == [0; 3]
    }

    /// Whether each output channel depends on one input channel of several.
    pub(super) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sandbox's host makes a guest's geometry again from its numbers.
    #[test]
    fn a_geometry_made_of_ones_numbers_is_that_one() {
        let far = usize::MAX / 64;
        for (size, kernel, stride, pad) in [
            (2, 1, 2, 0),
            (3, 2, 2, 0),
            (5, 3, 3, 0),
            (4, 3, 3, 1),
            (7, 7, 2, 0),
            (6, 1, far, 0),
            (8, 3, 2, 1),
        ] {
            let window = Window {
                kernel: &[kernel, kernel],
                strides: &[stride, stride],
                dilations: &[1, 1],
                pads_begin: &[pad, pad],
                pads_end: &[pad, pad],
            };
            let image = [1, 4, size, size];
            let weights = [8, 4, kernel, kernel];
            let made = Geometry::convolution(&image, &weights, window, 1).unwrap();
            let windows = (size + 2 * pad - kernel) / stride + 1;
            assert_eq!(made.output, [1, windows, windows]);
            let again = Window {
                kernel: &made.kernel,
                strides: &made.strides,
                dilations: &made.dilations,
                pads_begin: &made.pads_begin,
                pads_end: &made.pads_end,
            };
            let image = [1, 4, 1, size, size];
            let weights = [8, 4, 1, kernel, kernel];
            let again = Geometry::convolution(&image, &weights, again, 1).unwrap();
            assert_eq!(format!("{again:?}"), format!("{made:?}"));
        }
    }
}
