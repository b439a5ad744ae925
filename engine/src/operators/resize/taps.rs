//! Which input indices an output index of one axis is made of, and with which weights.

use smallvec::{SmallVec, smallvec};

use crate::error::OpError;
use crate::limits::{self, Charge, Watch};

/// Where an output index lies on the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

/// Which neighbour is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NearestRounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// How values between elements are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interpolation {
    pub(super) mode: Mode,
    pub(super) coordinates: Coordinates,
    pub(super) rounding: NearestRounding,
    pub(super) cubic_coefficient: f64,
    pub(super) exclude_outside: bool,
    pub(super) antialias: bool,
}

fn unknown(name: &str, expected: &str, found: &str) -> OpError {
    OpError::Attribute {
        name: name.into(),
        expected: expected.into(),
        found: found.into(),
    }
}

impl Coordinates {
    pub(super) fn parse(name: &str) -> Result<Self, OpError> {
        Ok(match name {
            "half_pixel" => Self::HalfPixel,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "align_corners" => Self::AlignCorners,
            "asymmetric" => Self::Asymmetric,
            "tf_crop_and_resize" => Self::CropAndResize,
            // Opset 11 had this one more, which is half_pixel but for where it rounds.
            "tf_half_pixel_for_nn" => Self::HalfPixel,
            other => {
                let name = "coordinate_transformation_mode";
                return Err(unknown(name, "a known transformation", other));
            }
        })
    }
}

impl NearestRounding {
    pub(super) fn parse(name: &str) -> Result<Self, OpError> {
        Ok(match name {
            "round_prefer_floor" => Self::PreferFloor,
            "round_prefer_ceil" => Self::PreferCeil,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            other => return Err(unknown("nearest_mode", "a known rounding", other)),
        })
    }

    fn round(self, x: f64) -> f64 {
        match self {
            Self::PreferFloor => (x - 0.5).ceil(),
            Self::PreferCeil => (x + 0.5).floor(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
        }
    }
}

/// For each output index of an axis, input indices with weights.
#[derive(Debug)]
pub(super) struct Taps {
    lists: Vec<SmallVec<[(usize, f64); 4]>>,
    /// Output indices that lie beyond the input, where these are extrapolated.
    pub(super) outside: Vec<bool>,
    /// Whether the output is the input.
    pub(super) is_identity: bool,
    /// For the lists that are long.
    charge: Charge,
}

impl Taps {
    /// The taps of one output index.
    pub(super) fn of(&self, index: usize) -> &[(usize, f64)] {
        &self.lists[index]
    }
}

impl Interpolation {
    /// The defaults of a mode.
    pub(super) fn new(mode: &str) -> Result<Self, OpError> {
        let mode = match mode {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" => Mode::Cubic,
            other => return Err(unknown("mode", "nearest, linear or cubic", other)),
        };
        Ok(Self {
            mode,
            coordinates: Coordinates::HalfPixel,
            rounding: NearestRounding::PreferFloor,
            cubic_coefficient: -0.75,
            exclude_outside: false,
            antialias: false,
        })
    }

    pub(super) fn is_nearest(&self) -> bool {
        self.mode == Mode::Nearest
    }

    /// The place on an axis of `from` elements that index `i` of `to` elements lies at.
    fn place(&self, i: usize, from: usize, to: usize, scale: f64, region: (f64, f64)) -> f64 {
        let (i, last) = (i as f64, from as f64 - 1.0);
        match self.coordinates {
            Coordinates::HalfPixel => (i + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel if to == 1 => -0.5,
            Coordinates::PytorchHalfPixel => (i + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = to as f64 / (scale * from as f64);
                let offset = from as f64 / 2.0 * (1.0 - adjustment);
                offset + (i + 0.5) / scale - 0.5
            }
            Coordinates::Asymmetric => i / scale,
            Coordinates::AlignCorners if to == 1 => 0.0,
            // The width as the scale gives it, before it is rounded down.
            Coordinates::AlignCorners => i * last / (scale * from as f64 - 1.0),
            Coordinates::CropAndResize => {
                let (start, end) = region;
                match to {
                    1 => 0.5 * (start + end) * last,
                    _ => start * last + i * (end - start) * last / (to as f64 - 1.0),
                }
            }
        }
    }

    /// The taps of an axis.
    pub(super) fn taps(&self, from: usize, to: usize, scale: f64, region: (f64, f64)) -> Taps {
        let crops = self.coordinates == Coordinates::CropAndResize;
        let mut taps = Taps {
            lists: limits::with_room(to),
            outside: limits::filled(false, to),
            is_identity: from == to && scale == 1.0 && (!crops || region == (0.0, 1.0)),
            charge: Charge::default(),
        };
        let (_, _, count) = self.span(scale);
        let long = if count > 4 {
            count.saturating_mul(size_of::<(usize, f64)>())
        } else {
            0
        };
        let mut watch = Watch::begin();
        for i in 0..to {
            watch.count(count.saturating_mul(8));
            if taps.is_identity {
                taps.lists.push(smallvec![(i, 1.0)]);
                continue;
            }
            let place = self.place(i, from, to, scale, region);
            let charged = taps.charge.add(long);
            charged.unwrap_or_else(|shortage| shortage.raise());
            taps.outside[i] = crops && !(0.0..=from as f64 - 1.0).contains(&place);
            taps.lists.push(self.around(place, from, scale));
        }
        taps
    }

    /// How much wider the kernel is than its neighbours are apart, as a factor below 1, where its
    /// first neighbour lies, and how many it has.
    fn span(&self, scale: f64) -> (f64, f64, usize) {
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let reach = match self.mode {
            Mode::Nearest => return (shrink, 0.0, 1),
            Mode::Linear => 1.0,
            Mode::Cubic => 2.0,
        };
        let first = (-reach / shrink).floor() + 1.0;
        (shrink, first, (2.0 - 2.0 * first).max(2.0) as usize)
    }

    fn around(&self, place: f64, from: usize, scale: f64) -> SmallVec<[(usize, f64); 4]> {
        let last = from.saturating_sub(1);
        // Saturates far outside.
        let clamp = |index: f64| (index.max(0.0) as usize).min(last);
        if self.mode == Mode::Nearest {
            return smallvec![(clamp(self.rounding.round(place)), 1.0)];
        }
        let floor = place.floor();
        let weight: &dyn Fn(f64) -> f64 = match self.mode {
            Mode::Cubic => &|x| cubic(x, self.cubic_coefficient),
            _ => &|x: f64| (1.0 - x.abs()).max(0.0),
        };
        let (shrink, first, count) = self.span(scale);
        let mut taps: SmallVec<[(usize, f64); 4]> = SmallVec::new();
        let mut sum = 0.0;
        for i in 0..count {
            let index = floor + first + i as f64;
            let mut w = weight((index - place) * shrink);
            if self.exclude_outside && !(0.0..=last as f64).contains(&index) {
                w = 0.0;
            }
            sum += w;
            if w != 0.0 {
                taps.push((clamp(index), w));
            }
        }
        if (self.exclude_outside || shrink < 1.0) && sum != 0.0 {
            taps.iter_mut().for_each(|(_, w)| *w /= sum);
        }
        taps
    }
}

/// The cubic convolution kernel (Keys, 1981) with coefficient `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_weights_add_up_to_one() {
        for i in 0..10 {
            let x = f64::from(i) / 10.0;
            let sum: f64 = [-1.0, 0.0, 1.0, 2.0]
                .iter()
                .map(|j| cubic(j - x, -0.75))
                .sum();
            assert!((sum - 1.0).abs() < 1e-12, "{x}: {sum}");
        }
    }

    #[test]
    fn halves_round_as_told() {
        let round = |name: &str| NearestRounding::parse(name).expect("known").round(1.5);
        assert_eq!(
            ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"].map(round),
            [1.0, 2.0, 1.0, 2.0]
        );
    }
}
