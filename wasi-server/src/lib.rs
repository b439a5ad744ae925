//! lethe-server
