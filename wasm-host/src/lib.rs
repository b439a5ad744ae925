//! Lethe's host: the command line and what it needs of files, sandboxes and the network.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`model_file`] | models mapped from files, with their external data |
//! | [`values`] | tensors and other values in files |
//! | [`settings`] | flags that say how to run |
//! | [`runner`] | one face for the engine in this process and in a sandbox |
//! | [`verification`] | comparing with expected outputs |
//! | [`commands`] | the commands of the binary `lethe` |
#![deny(unsafe_code)]

pub mod commands;
pub mod model_file;
pub mod runner;
pub mod settings;
pub mod values;
pub mod verification;
