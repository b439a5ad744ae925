//! The strings of a tensor.

use std::borrow::Cow;
use std::ops::Deref;

use crate::limits::{self, Charge, Shortage, Watch};

/// Strings that count as memory of the run that they were made in, until they are dropped.
#[derive(Debug)]
pub struct Strings {
    texts: Vec<String>,
    #[expect(dead_code, reason = "held")]
    charge: Charge,
}

/// What the allocator takes beside the bytes of a text.
const BESIDE: usize = 32;

/// Bytes that a text of this length has on the heap.
fn heap_bytes(len: usize) -> usize {
    match len {
        0 => 0,
        len => len.saturating_add(BESIDE),
    }
}

/// Bytes of so many strings without their texts.
fn headers(len: usize) -> usize {
    len.saturating_mul(size_of::<String>())
}

impl Strings {
    /// Charges strings that are there.
    ///
    /// # Errors
    /// When the run may not have so much memory.
    pub fn charged(texts: Vec<String>) -> Result<Self, Shortage> {
        let bytes = texts.iter().fold(headers(texts.capacity()), |sum, text| {
            sum.saturating_add(heap_bytes(text.capacity()))
        });
        Ok(Self {
            charge: limits::charge(bytes)?,
            texts,
        })
    }

    /// The strings of these texts. Each is charged before it is copied: a few bytes of a model can
    /// ask for one text a million times. Looks between them whether the run is to end.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn collect<'a>(
        given: impl ExactSizeIterator<Item = Cow<'a, str>>,
    ) -> Result<Self, Shortage> {
        let system = |needed: usize| {
            move |_| Shortage::System {
                needed: needed as u64,
            }
        };
        let mut charge = limits::charge(headers(given.len()))?;
        let mut texts = Vec::new();
        texts
            .try_reserve_exact(given.len())
            .map_err(system(headers(given.len())))?;
        let mut watch = Watch::begin();
        for text in given {
            watch.count(text.len() + 64);
            texts.push(match text {
                Cow::Owned(text) => {
                    charge.add(heap_bytes(text.capacity()))?;
                    text
                }
                Cow::Borrowed(text) => {
                    charge.add(heap_bytes(text.len()))?;
                    let mut copy = String::new();
                    copy.try_reserve_exact(text.len())
                        .map_err(system(text.len()))?;
                    copy.push_str(text);
                    copy
                }
            });
        }
        Ok(Self { texts, charge })
    }

    /// Copies of strings.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn copy_of(strings: &[String]) -> Result<Self, Shortage> {
        Self::collect(strings.iter().map(|text| Cow::Borrowed(text.as_str())))
    }
}

impl Deref for Strings {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.texts
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, Stop, within};

    #[test]
    fn strings_are_charged_before_they_are_copied_and_until_they_are_dropped() {
        let limits = Limits {
            memory_bytes: 10_000,
            stop: Stop::default(),
        };
        let text = "x".repeat(1000);
        within(limits, || {
            let copied = std::cell::Cell::new(0);
            let many = (0..1000).map(|_| {
                copied.set(copied.get() + 1);
                Cow::Borrowed(text.as_str())
            });
            assert!(Strings::collect(many).is_err(), "24000 bytes of headers");
            assert_eq!(copied.get(), 0);
            let nine = || Strings::copy_of(&vec![text.clone(); 9]);
            let held = nine().expect("9504 bytes");
            assert!(limits::charge(1000).is_err(), "{} are held", held.len());
            assert!(nine().is_err());
            drop(held);
            assert!(nine().is_ok());
            assert!(Strings::charged(vec![text.clone(); 10]).is_err());
        });
    }
}
