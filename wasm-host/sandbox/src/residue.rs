//! What is left of a request: a [`Canary`] goes through, and is looked for in the whole process.
//!
//! Whoever looks must not keep the canary himself. So it is held masked, unmasked byte by byte into
//! the request (which is zeroized), and compared masked in the search.

use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

const MASK: u8 = 0xa5;

/// Bytes that are nowhere else in this process.
///
/// Every fourth byte is 0x1f, so that they also read as eight floats between 1e-20 and 1e-19: a mark
/// that no model notices.
#[derive(Debug, Clone)]
pub struct Canary {
    masked: [u8; Self::BYTES],
}

impl Canary {
    /// Its length.
    pub const BYTES: usize = 32;

    /// A canary for this seed in this process.
    pub fn new(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
        let masked = std::array::from_fn(|i| {
            // Xorshift (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if i % 4 == 3 {
                0x1f ^ MASK
            } else {
                (state >> 32) as u8
            }
        });
        Self { masked }
    }

    /// Writes the canary over `memory`, again and again.
    pub fn write(&self, memory: &mut [u8]) {
        for (i, byte) in memory.iter_mut().enumerate() {
            *byte = self.masked[i % Self::BYTES] ^ MASK;
        }
    }

    /// How often it is in `memory`.
    pub fn count(&self, memory: &[u8]) -> usize {
        self.places(memory).count()
    }

    fn places<'a>(&'a self, memory: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        // One of its bytes is looked for first, rather one that memory is not full of; one alone
        // gives nothing away.
        let unmasked = self.masked.iter().map(|byte| byte ^ MASK);
        let (at, first) = unmasked
            .enumerate()
            .find(|(_, byte)| ![0, 0x1f, 0xff].contains(byte))
            .unwrap_or((0, self.masked[0] ^ MASK));
        memchr::memchr_iter(first, memory)
            .filter_map(move |found| found.checked_sub(at))
            .filter(|&i| {
                let window = memory.get(i..i + Self::BYTES);
                window.is_some_and(|window| self.is(window))
            })
    }

    fn is(&self, bytes: &[u8]) -> bool {
        // Without the black box the compiler may unmask the canary once, and keep it on the stack.
        let pairs = bytes.iter().zip(&self.masked);
        pairs
            .into_iter()
            .all(|(byte, masked)| black_box(byte ^ MASK) == *masked)
    }

    /// Where it is in all memory of this process that can be read: addresses and the names of
    /// their mappings.
    ///
    /// # Errors
    /// When the system does not show a process its own memory (`/proc/self`).
    pub fn places_in_process(&self) -> io::Result<Vec<String>> {
        const CHUNK: usize = 1 << 20;
        let memory = File::open("/proc/self/mem")?;
        let mut chunk = Zeroizing::new(vec![0u8; CHUNK + Self::BYTES]);
        let own = chunk.as_ptr().addr()..chunk.as_ptr().addr() + chunk.len();
        let mut places = Vec::new();
        for mapping in fs::read_to_string("/proc/self/maps")?.lines() {
            let Some((start, end, name)) = readable(mapping) else {
                continue;
            };
            let mut at = start;
            while at < end {
                // Chunks overlap by a canary, so that none is cut in two.
                let len = (end - at).min(chunk.len());
                if let Ok(read) = memory.read_at(&mut chunk[..len], at as u64) {
                    let found = self.places(&chunk[..read]);
                    let found = found.filter(|&i| !own.contains(&(at + i)));
                    places.extend(found.map(|i| format!("{:#x} in {name}", at + i)));
                }
                at += CHUNK;
            }
            places.dedup();
        }
        Ok(places)
    }
}

/// Start, end and name of a line of `/proc/self/maps`, where a process may read it.
fn readable(mapping: &str) -> Option<(usize, usize, &str)> {
    let mut fields = mapping.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let name = fields.nth(3).unwrap_or("anonymous");
    if !rights.starts_with('r') || name.starts_with("[v") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    Some((address(start)?, address(end)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_while_it_is_there() {
        let canary = Canary::new(4711);
        assert_eq!(canary.places_in_process().unwrap(), [""; 0]);
        let mut memory = Zeroizing::new(vec![0; 3 * Canary::BYTES + 1]);
        canary.write(&mut memory[1..]);
        assert_eq!(canary.count(&memory), 3);
        assert_eq!(canary.places_in_process().unwrap().len(), 3);
        drop(memory);
        assert_eq!(canary.places_in_process().unwrap(), [""; 0]);
    }

    #[test]
    fn a_canary_reads_as_faint_floats() {
        let mut bytes = Zeroizing::new([0; Canary::BYTES]);
        Canary::new(1).write(&mut bytes[..]);
        for float in bytes.chunks_exact(4) {
            let float = f32::from_le_bytes(float.try_into().unwrap());
            assert!((2e-20..1.1e-19).contains(&float), "{float}");
        }
    }
}
