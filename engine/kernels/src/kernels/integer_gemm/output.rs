//! What becomes of the sums of an integer product.

/// A factor for each element and something to add: `value = sum · columns[n] · rows[m] + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Scale<'a> {
    /// One factor, or one a column.
    pub columns: &'a [f32],
    /// No factors (one), or one a row.
    pub rows: &'a [f32],
    /// What is added after scaling.
    pub bias: Bias<'a>,
}

/// What is added to a scaled sum.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// A number for each column.
    Columns(&'a [f32]),
    /// A number for each row.
    Rows(&'a [f32]),
}

/// Where the elements of the product `[M, N]` (row-major) go, and as what.
#[derive(Debug)]
pub enum Output<'a> {
    /// The sums.
    Integers(&'a mut [i32]),
    /// Scaled sums.
    Floats {
        /// Where to.
        data: &'a mut [f32],
        /// How scaled.
        scale: Scale<'a>,
    },
    /// `clamp(round(value) + zero_point, 0, 255)`, ties to even.
    Unsigned {
        /// Where to.
        data: &'a mut [u8],
        /// How scaled.
        scale: Scale<'a>,
        /// What stands for zero.
        zero_point: u8,
    },
    /// `clamp(round(value) + zero_point, -128, 127)`, ties to even.
    Signed {
        /// Where to.
        data: &'a mut [i8],
        /// How scaled.
        scale: Scale<'a>,
        /// What stands for zero.
        zero_point: i8,
    },
}

impl Output<'_> {
    /// # Panics
    /// If a slice does not have the length that the sizes ask for.
    pub(super) fn check(&self, m: usize, n: usize) {
        let (len, scale) = match self {
            Output::Integers(data) => (data.len(), None),
            Output::Floats { data, scale } => (data.len(), Some(scale)),
            Output::Unsigned { data, scale, .. } => (data.len(), Some(scale)),
            Output::Signed { data, scale, .. } => (data.len(), Some(scale)),
        };
        assert_eq!(len, m * n, "the output is not [M, N]");
        let Some(scale) = scale else { return };
        assert!([1, n].contains(&scale.columns.len()), "one scale or N");
        assert!([0, m].contains(&scale.rows.len()), "no row scales or M");
        match scale.bias {
            Bias::None => {}
            Bias::Columns(bias) => assert_eq!(bias.len(), n, "bias of N columns"),
            Bias::Rows(bias) => assert_eq!(bias.len(), m, "bias of M rows"),
        }
    }
}
