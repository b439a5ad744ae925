//! Rotary position embedding: pairs of elements turned by an angle that grows with the position.
//!
//! Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.

/// Which elements of a vector form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Element `i` of the first half with element `i` of the second.
    Halves,
    /// Elements `2i` and `2i + 1`.
    Neighbours,
}

/// Turns the first `2 · cos.len()` elements of `x` in place; the others stay.
///
/// # Panics
/// If `x` is shorter, or `sin` and `cos` differ in length.
pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32], pairs: Pairs) {
    assert_eq!(cos.len(), sin.len());
    let half = cos.len();
    let turn = |a: &mut f32, b: &mut f32, cos: f32, sin: f32| {
        (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b);
    };
    let x = &mut x[..2 * half];
    match pairs {
        Pairs::Halves => {
            let (first, second) = x.split_at_mut(half);
            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                turn(a, b, cos, sin);
            }
        }
        Pairs::Neighbours => {
            for ((pair, &cos), &sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = pair.split_at_mut(1);
                turn(&mut a[0], &mut b[0], cos, sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_exchanges_the_pair() {
        let mut x = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut x, &[0.0, 1.0], &[1.0, 0.0], Pairs::Halves);
        assert_eq!(x, [-3.0, 2.0, 1.0, 4.0, 5.0]);
        let mut x = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut x, &[0.0, 1.0], &[1.0, 0.0], Pairs::Neighbours);
        assert_eq!(x, [-2.0, 1.0, 3.0, 4.0, 5.0]);
    }
}
