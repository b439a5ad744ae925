//! Permutation of axes, for elements of any size.
//!
//! ```text
//! drop axes of size 1, merge axes that stay neighbours
//! the innermost axis stays:  copy its runs
//! otherwise:                 for all other axes: transpose [innermost of input × innermost of output]
//!                            tile by tile, reading and writing runs of 16
//! ```

use smallvec::SmallVec;

use crate::kernels::env::Env;
use crate::limits::Watch;
use crate::tensor::row_major_strides;

/// An axis of the output, and its stride in the input, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    size: usize,
    stride: usize,
}

type Axes = SmallVec<[Axis; 6]>;

/// Edge of a tile.
const TILE: usize = 16;
/// Elements below which threads are not worth waking.
const LEAST: usize = 32_768;
/// What a row or a block of tiles takes beside its elements, in elements.
const BLOCK: usize = 8;

/// Axes of the output, neighbours merged as far as possible; at least one.
fn merged_axes(shape: &[usize], permutation: &[usize]) -> Axes {
    let strides = row_major_strides(shape);
    let mut axes = Axes::new();
    for &axis in permutation.iter().filter(|&&axis| shape[axis] != 1) {
        let axis = Axis {
            size: shape[axis],
            stride: strides[axis],
        };
        match axes.last_mut() {
            Some(outer) if outer.stride == axis.stride * axis.size => {
                *outer = Axis {
                    size: outer.size * axis.size,
                    stride: axis.stride,
                };
            }
            _ => axes.push(axis),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, stride: 1 });
    }
    axes
}

/// `y[i₀, i₁, …] = x[…]` where axis `j` of `y` is axis `permutation[j]` of `x`, which has the
/// given shape.
///
/// # Panics
/// When `permutation` is not one of the axes of `shape`, or the slices do not have the elements of
/// `shape`.
pub fn transpose<T: Clone + Send + Sync>(
    env: &Env,
    shape: &[usize],
    permutation: &[usize],
    x: &[T],
    y: &mut [T],
) {
    assert!(x.len() == y.len() && x.len() == shape.iter().product());
    if y.is_empty() {
        return;
    }
    let axes = merged_axes(shape, permutation);
    if let [_] = axes[..] {
        return y.clone_from_slice(x);
    }
    let row = y.len() / axes[0].size;
    let rows = env
        .threads
        .piece_len(axes[0].size, LEAST.div_ceil(row), TILE);
    env.threads.for_each_chunk_mut(y, rows * row, |i, y| {
        let mut axes = axes.clone();
        let start = i * rows * axes[0].stride;
        axes[0].size = y.len() / row;
        transpose_piece(&axes, &x[start..], y);
    });
}

/// Calls `work` with the offset in the input for each combination of the axes, in their order.
fn for_each_offset(axes: &[Axis], mut work: impl FnMut(usize)) {
    let mut coordinates: SmallVec<[usize; 6]> = SmallVec::from_elem(0, axes.len());
    let mut offset = 0;
    'all: loop {
        work(offset);
        for (coordinate, axis) in coordinates.iter_mut().zip(axes).rev() {
            *coordinate += 1;
            offset += axis.stride;
            if *coordinate < axis.size {
                continue 'all;
            }
            offset -= axis.size * axis.stride;
            *coordinate = 0;
        }
        return;
    }
}

fn transpose_piece<T: Clone>(axes: &[Axis], x: &[T], y: &mut [T]) {
    let (last, outer) = axes.split_last().expect("there are at least two axes");
    let mut watch = Watch::begin();
    if last.stride == 1 {
        let mut rows = y.chunks_exact_mut(last.size);
        for_each_offset(outer, |offset| {
            watch.count(last.size + BLOCK);
            let row = rows.next().expect("as many rows as offsets");
            row.clone_from_slice(&x[offset..offset + row.len()]);
        });
        return;
    }
    // The axis along which the input is contiguous; what lies inside of it in the output.
    let inner = outer
        .iter()
        .position(|axis| axis.stride == 1)
        .expect("one axis has stride 1");
    let (before, after) = (&outer[..inner], &outer[inner + 1..]);
    let y_stride: usize = axes[inner + 1..].iter().map(|axis| axis.size).product();
    let mut block_start = 0;
    for_each_offset(before, |before_offset| {
        let mut start = block_start;
        for_each_offset(after, |after_offset| {
            watch.count(outer[inner].size * last.size + BLOCK);
            let x = &x[before_offset + after_offset..];
            let tiled = Tiled {
                rows: outer[inner].size,
                columns: last.size,
            };
            tiled.transpose(x, last.stride, &mut y[start..], y_stride);
            start += last.size;
        });
        block_start += outer[inner].size * y_stride;
    });
}

/// A matrix `[rows, columns]` of the output, whose columns are contiguous in the input.
struct Tiled {
    rows: usize,
    columns: usize,
}

impl Tiled {
    /// `y[i · y_stride + j] = x[j · x_stride + i]`.
    fn transpose<T: Clone>(&self, x: &[T], x_stride: usize, y: &mut [T], y_stride: usize) {
        for i0 in (0..self.rows).step_by(TILE) {
            let height = TILE.min(self.rows - i0);
            for j0 in (0..self.columns).step_by(TILE) {
                let width = TILE.min(self.columns - j0);
                if height == TILE && width == TILE {
                    let columns: [&[T]; TILE] =
                        std::array::from_fn(|j| &x[(j0 + j) * x_stride + i0..][..TILE]);
                    for i in 0..TILE {
                        let row = &mut y[(i0 + i) * y_stride + j0..][..TILE];
                        for (y, column) in row.iter_mut().zip(&columns) {
                            *y = column[i].clone();
                        }
                    }
                    continue;
                }
                for i in i0..i0 + height {
                    let row = &mut y[i * y_stride + j0..][..width];
                    for (j, y) in row.iter_mut().enumerate() {
                        *y = x[(j0 + j) * x_stride + i].clone();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::threads::Threads;

    fn reference<T: Copy>(shape: &[usize], permutation: &[usize], x: &[T]) -> Vec<T> {
        let strides = row_major_strides(shape);
        let output: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
        let output_strides = row_major_strides(&output);
        (0..x.len())
            .map(|i| {
                let place = |j: usize| i / output_strides[j] % output[j] * strides[permutation[j]];
                x[(0..output.len()).map(place).sum::<usize>()]
            })
            .collect()
    }

    #[test]
    fn transpose_permutes_axes() {
        let cases: [(&[usize], &[usize]); 14] = [
            (&[], &[]),
            (&[5], &[0]),
            (&[3, 4], &[1, 0]),
            (&[50, 37], &[1, 0]),
            (&[2, 3, 4], &[2, 1, 0]),
            (&[2, 3, 4], &[0, 2, 1]),
            (&[2, 3, 4], &[1, 0, 2]),
            (&[2, 1, 3, 1], &[3, 2, 1, 0]),
            (&[2, 17, 5, 33], &[0, 2, 1, 3]),
            (&[2, 17, 5, 33], &[0, 2, 3, 1]),
            (&[2, 17, 5, 33], &[3, 0, 2, 1]),
            (&[3, 4, 5, 2, 3], &[4, 1, 3, 0, 2]),
            (&[0, 4], &[1, 0]),
            (&[400, 300], &[1, 0]),
        ];
        for threads in [Threads::single(), Threads::new(3).unwrap_or_default()] {
            let env = Env {
                threads,
                ..Env::new()
            };
            for (shape, permutation) in cases {
                let x: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
                let mut y = vec![0; x.len()];
                transpose(&env, shape, permutation, &x, &mut y);
                assert!(
                    y == reference(shape, permutation, &x),
                    "{shape:?} {permutation:?}"
                );
            }
        }
    }

    #[test]
    fn neighbours_are_merged() {
        let axes = merged_axes(&[2, 3, 4, 5], &[2, 3, 0, 1]);
        assert_eq!(
            &axes[..],
            &[
                Axis {
                    size: 20,
                    stride: 1
                },
                Axis {
                    size: 6,
                    stride: 20
                }
            ]
        );
    }
}
