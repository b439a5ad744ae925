//! Pages of machine code that only a start needed.
//!
//! Reading settings and models, compiling or opening a guest: most of the code that a server touches
//! runs once. Its pages are a file's and cost nobody else anything, but they count as the process's
//! resident memory until it ends. Given back, those that are needed again come from the page cache.
#![expect(unsafe_code, reason = "advises the kernel on mappings")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

use rustix::mm::Advice;

/// The list of this process's mappings, to be opened while it may be.
#[derive(Debug)]
pub(crate) struct CodePages(File);

impl CodePages {
    /// The list; `None` where there is none.
    pub(crate) fn open() -> Option<Self> {
        File::open("/proc/self/smaps").ok().map(Self)
    }

    /// The mappings of code.
    fn list(self) -> Vec<Code> {
        code_of_files(BufReader::new(self.0))
    }

    /// Gives the pages of all code back; says how many bytes that were.
    pub(crate) fn give_back(self) -> usize {
        self.list().into_iter().map(Code::give_back).sum()
    }
}

/// A mapping of code.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    range: Range<usize>,
    resident_bytes: usize,
}

impl Code {
    /// Gives the pages back; says how many bytes that were.
    fn give_back(self) -> usize {
        // SAFETY: the kernel lists the range as a private mapping of a file that cannot be written to
        // and has no page of its own, so each page is the file's before and after. Code is unmapped
        // only where a model is unloaded, which nobody does during a start.
        let advised = unsafe {
            let start = std::ptr::with_exposed_provenance_mut(self.range.start);
            rustix::mm::madvise(start, self.range.len(), Advice::LinuxDontNeed)
        };
        advised.map_or(0, |()| self.resident_bytes)
    }
}

/// The mappings of code in a list (`proc_pid_smaps(5)`) that have nothing but a file's pages.
fn code_of_files(list: impl BufRead) -> Vec<Code> {
    let mut found = Vec::new();
    let mut code: Option<Code> = None;
    for line in list.lines().map_while(Result::ok) {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            continue;
        };
        let bytes = || {
            second
                .parse::<usize>()
                .ok()
                .map(|kilobytes| kilobytes << 10)
        };
        match first {
            "Rss:" => {
                if let (Some(code), Some(resident_bytes)) = (&mut code, bytes()) {
                    code.resident_bytes = resident_bytes;
                }
            }
            "Anonymous:" if bytes() == Some(0) => found.extend(code.take()),
            _ if !first.ends_with(':') => {
                let is_of_file = words.nth(2).is_some_and(|inode| inode != "0");
                code = range(first)
                    .filter(|_| second == "r-xp" && is_of_file)
                    .map(|range| Code {
                        range,
                        resident_bytes: 0,
                    });
            }
            _ => {}
        }
    }
    found
}

fn range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_without_pages_of_its_own_is_found() {
        let list = "\
1000-3000 r-xp 00001000 fe:00 77 /usr/bin/lethe
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex
3000-4000 r-xp 00003000 fe:00 77 /usr/bin/patched
Rss:                   4 kB
Anonymous:             4 kB
4000-5000 r--p 00004000 fe:00 77 /usr/bin/lethe
Rss:                   4 kB
Anonymous:             0 kB
5000-6000 r-xp 00000000 00:00 0 [vdso]
Rss:                   4 kB
Anonymous:             0 kB
";
        let code = Code {
            range: 0x1000..0x3000,
            resident_bytes: 8192,
        };
        assert_eq!(code_of_files(list.as_bytes()), [code]);
    }

    #[test]
    fn pages_that_were_given_back_come_from_the_file_again() {
        const LEN: usize = 1 << 20;
        let path = std::env::temp_dir().join(format!("lethe-code-{}", std::process::id()));
        std::fs::write(&path, [7; LEN]).unwrap();
        let file = File::open(&path).unwrap();
        // SAFETY: nobody changes the file, which has a name of this process alone.
        let map = unsafe { memmap2::MmapOptions::new().map_copy(&file) };
        let map = map.unwrap().make_exec().unwrap();
        std::fs::remove_file(&path).unwrap();
        // Of this mapping alone: beside this test others load code and unload it.
        let listed = || {
            let list = CodePages::open().unwrap().list();
            list.into_iter()
                .find(|code| code.range.contains(&map.as_ptr().addr()))
        };
        for _ in 0..2 {
            assert!(map.iter().all(|&byte| byte == 7));
            assert_eq!(listed().unwrap().give_back(), LEN);
            assert_eq!(listed().unwrap().resident_bytes, 0);
        }
    }
}
