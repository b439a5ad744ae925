//! lethe-web
