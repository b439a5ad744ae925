//! lethe-benches
