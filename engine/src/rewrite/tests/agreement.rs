//! Small models that must give the same with and without rewrites: the same shape, type and numbers,
//! and never an error in one of the two.

mod attention;
mod case;
mod declarations;
mod normalizations;
mod products;

use case::{BASE, Case, check_all};

#[test]
fn zeros_of_either_sign_stay_apart() {
    check_all(&[Case {
        name: "signs of zero",
        inputs: "x:n",
        nodes: "a=Div x 0.0; b=Div x -0.0; y=Concat a b axis=0",
        runs: "3",
        ..BASE
    }]);
}
