//! What the machine has.

use std::fs;

/// Bytes of memory that this process may use: the machine's, or less where it is in a control group with
/// a limit. `None` where the operating system does not say.
///
/// Source: <https://www.kernel.org/doc/html/latest/admin-guide/cgroup-v2.html>, `memory.max`.
pub(crate) fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text));
    // In a container the group's own folder is the root of what it sees.
    let groups = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limits = groups
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    // Without a limit there is a word, or in the first version a number beyond all memory.
    let limits = limits.filter_map(|text| text.trim().parse().ok());
    limits.chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read() {
        let text = "MemTotal:       24689764 kB\nMemFree:        22000000 kB\n";
        assert_eq!(total_of(text), Some(24_689_764 * 1024));
        for text in [
            "",
            "MemTotal: kB",
            "MemTotal: 5",
            "MemTotal: 99999999999999999999 kB",
        ] {
            assert_eq!(total_of(text), None, "{text:?}");
        }
        #[cfg(target_os = "linux")]
        assert!(memory_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }
}
