//! lethe-host
