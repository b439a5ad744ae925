//! When each value is made and read for the last time, and where in the arena it lies meanwhile.

use smallvec::SmallVec;
use std::ops::Range;

use super::layout::{Place, StepKind, ValueLayout};
use super::{Plan, Step};
use crate::error::Error;
use crate::graph::ValueId;

/// Every tensor begins at a cache line, the alignment of the widest vectors.
const ALIGNMENT: usize = 64;

/// For each value: the step after which nobody reads it, or its memory under another name.
pub(super) struct Lifetimes<'a> {
    roots: &'a [ValueId],
    last_use: Vec<Option<usize>>,
}

impl<'a> Lifetimes<'a> {
    pub(super) fn new(plan: &Plan, roots: &'a [ValueId], kinds: &[StepKind]) -> Self {
        let mut last_use = vec![None; roots.len()];
        for (i, (step, kind)) in plan.steps.iter().zip(kinds).enumerate() {
            // An output that nobody reads is alive while its step runs.
            let read = match kind {
                StepKind::Known => continue,
                _ => step.inputs.iter().chain(&step.outputs).flatten(),
            };
            for id in read {
                last_use[roots[id.index()].index()] = Some(i);
            }
        }
        for id in &plan.outputs {
            last_use[roots[id.index()].index()] = Some(plan.steps.len());
        }
        Self { roots, last_use }
    }

    /// Gives every tensor of the arena its place, lets operators compute in place, and tells how
    /// long the arena must be.
    pub(super) fn allocate(
        &mut self,
        plan: &Plan,
        kinds: &mut [StepKind],
        values: &mut [ValueLayout],
        limit_bytes: u64,
    ) -> Result<usize, Error> {
        let mut free = FreeList::default();
        let mut live: Vec<(ValueId, Range<usize>)> = Vec::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let StepKind::Planned { .. } = kinds[i] else {
                self.release_after(i, &mut live, &mut free);
                continue;
            };
            let in_place = self.in_place(step, i, values);
            for (o, id) in step.outputs.iter().enumerate() {
                let Some(id) = *id else { continue };
                let value = &values[id.index()];
                let len = value
                    .shape
                    .iter()
                    .try_fold(1usize, |n, &d| n.checked_mul(d))
                    .and_then(|n| value.data_type.size_bytes(n))
                    .filter(|&n| (n as u64) <= limit_bytes)
                    .ok_or_else(|| Error::Budget {
                        what: "memory of one tensor",
                        needed: value
                            .shape
                            .iter()
                            .fold(value.data_type.bits() as u64, |n, &d| {
                                n.saturating_mul(d as u64)
                            })
                            .div_ceil(8),
                        limit: limit_bytes,
                    })?;
                let range = match in_place {
                    Some((input, output)) if output == o => {
                        let source = step.inputs[input].map(|id| self.roots[id.index()]);
                        let at = live.iter().position(|(id, _)| Some(*id) == source);
                        // The input's memory becomes the output's.
                        at.map(|at| live.swap_remove(at).1)
                    }
                    _ => None,
                };
                let range = range.unwrap_or_else(|| free.take(len));
                values[id.index()].place = Place::Arena(range.start..range.start + len);
                live.push((id, range));
            }
            kinds[i] = StepKind::Planned { in_place };
            self.release_after(i, &mut live, &mut free);
        }
        if free.end as u64 > limit_bytes {
            return Err(Error::Budget {
                what: "memory of a run",
                needed: free.end as u64,
                limit: limit_bytes,
            });
        }
        Ok(free.end)
    }

    fn release_after(
        &self,
        step: usize,
        live: &mut Vec<(ValueId, Range<usize>)>,
        free: &mut FreeList,
    ) {
        live.retain(|(id, range)| {
            let keep = self.last_use[id.index()].is_some_and(|last| last > step);
            if !keep {
                free.give(range.clone());
            }
            keep
        });
    }

    /// The first pair that the operator allows and whose input dies here.
    fn in_place(&self, step: &Step, i: usize, values: &[ValueLayout]) -> Option<(usize, usize)> {
        let possible = |&&(input, output): &&(usize, usize)| {
            let (Some(Some(a)), Some(Some(b))) = (step.inputs.get(input), step.outputs.get(output))
            else {
                return false;
            };
            let root = self.roots[a.index()];
            let uses = step
                .inputs
                .iter()
                .flatten()
                .filter(|id| self.roots[id.index()] == root)
                .count();
            let (a, b) = (&values[a.index()], &values[b.index()]);
            matches!(values[root.index()].place, Place::Arena(_))
                && uses == 1
                && self.last_use[root.index()] == Some(i)
                && a.data_type == b.data_type
                && a.shape.iter().product::<usize>() == b.shape.iter().product::<usize>()
        };
        step.operator.in_place().iter().find(possible).copied()
    }

    /// For each step, the dynamic values to let go after it.
    pub(super) fn releases(
        &self,
        values: &[ValueLayout],
        steps: usize,
    ) -> Vec<SmallVec<[ValueId; 2]>> {
        let mut releases = vec![SmallVec::new(); steps];
        for (i, value) in values.iter().enumerate() {
            if let (Place::Dynamic, Some(last)) = (&value.place, self.last_use[i])
                && last < steps
            {
                releases[last].push(ValueId(i as u32));
            }
        }
        releases
    }
}

/// Free pieces of a growing block, by position; the smallest that fits is taken.
#[derive(Default)]
struct FreeList {
    pieces: Vec<Range<usize>>,
    end: usize,
}

impl FreeList {
    fn take(&mut self, len: usize) -> Range<usize> {
        let len = len.next_multiple_of(ALIGNMENT);
        if len == 0 {
            return 0..0;
        }
        let fits = |(_, p): &(usize, &Range<usize>)| p.len() >= len;
        let best = self
            .pieces
            .iter()
            .enumerate()
            .filter(fits)
            .min_by_key(|(_, p)| p.len());
        if let Some((i, _)) = best {
            let piece = self.pieces[i].clone();
            match piece.len() == len {
                true => drop(self.pieces.remove(i)),
                false => self.pieces[i].start += len,
            }
            return piece.start..piece.start + len;
        }
        // Grow the last piece where it touches the end, otherwise add one.
        let start = match self.pieces.last() {
            Some(last) if last.end == self.end => self.pieces.pop().map_or(self.end, |p| p.start),
            _ => self.end,
        };
        self.end = start + len;
        start..self.end
    }

    fn give(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let i = self.pieces.partition_point(|p| p.start < range.start);
        self.pieces.insert(i, range);
        if i + 1 < self.pieces.len() && self.pieces[i].end == self.pieces[i + 1].start {
            self.pieces[i].end = self.pieces.remove(i + 1).end;
        }
        if i > 0 && self.pieces[i - 1].end == self.pieces[i].start {
            self.pieces[i - 1].end = self.pieces.remove(i).end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pieces_are_merged_and_reused() {
        let mut free = FreeList::default();
        let (a, b, c) = (free.take(64), free.take(100), free.take(64));
        assert_eq!(
            (a.clone(), b.clone(), c.clone()),
            (0..64, 64..192, 192..256)
        );
        free.give(a);
        free.give(b);
        assert_eq!(free.take(192), 0..192);
        free.give(c);
        assert_eq!((free.take(128), free.end), (192..320, 320));
    }
}
