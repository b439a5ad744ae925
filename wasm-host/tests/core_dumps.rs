//! No core dump is left behind.
#![cfg(target_os = "linux")]

use std::fs;

use lethe_host::harden::{Dumpable, no_core_dumps};

#[test]
fn core_dumps_are_off() {
    no_core_dumps(Dumpable::Keep).unwrap();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "soft and hard limit");
    let dumpable = || rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable(), rustix::process::DumpableBehavior::Dumpable);
    no_core_dumps(Dumpable::No).unwrap();
    assert_eq!(dumpable(), rustix::process::DumpableBehavior::NotDumpable);
}
