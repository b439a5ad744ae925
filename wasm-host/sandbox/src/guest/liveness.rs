//! What of a module a request can reach: the functions that can be called, the constants that can
//! be read.
//!
//! ```text
//! roots      kept exports, the start function; addresses and functions in the frozen memory
//! function ─► functions it calls; functions and constants that its code refers to
//! constant ─► functions and constants that it refers to: a vtable its methods, a table its rows
//! ```
//!
//! Code and constants are exact, since the linker says what they refer to ([`References`]). Of the
//! frozen memory nobody says what is what. Each aligned word that could be the address of a constant
//! counts as one: too much may be kept, but nothing that is needed goes. A function there is its
//! place in the table, a small number like many others; it is known by a second load in a guest
//! whose table is moved by one ([`super::moved_table`]): what is one more there is a function, and
//! all else is the same. Everything that was loaded is in the memory, so the operators of the models
//! are reached by their vtables, and other operators are not.
//!
//! The stack is empty while no request runs: what loading left there is not looked at, nor kept.
//!
//! Before a model is loaded there is no such memory. Where it is known which operators it needs, the
//! other rows of the guest's table of operators lead nowhere: what only they lead to stays dead.
//! Where nothing is known any place in a table counts as called, and every constant as read.

use std::collections::BTreeSet;
use std::ops::Range;

use lethe_engine::operators::TABLE;
use wasmparser::{ElementItems, ElementKind, ExternalKind, FunctionBody, Operator};
use wasmparser::{Parser, Payload, TypeRef};

use super::moved_table::SHIFT;
use super::references::{References, Target};
use super::{GuestError, Segment};

/// A row of [`TABLE`] on wasm32: two texts of 8 bytes, a number of 8, the function, another text and what
/// is left of 8.
const ROW_BYTES: usize = 40;
/// Where in a row its function is.
const PARSE: usize = 24;

/// What a request can reach.
#[derive(Debug)]
pub struct Live {
    /// For each function, imports first, whether it can be called.
    pub(super) functions: Vec<bool>,
    /// Addresses that nothing reads before it writes them, ascending and apart: the stack's, and
    /// those of constants.
    pub unread: Vec<Range<usize>>,
}

/// What is known of the requests to come.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// Nothing: any model may be loaded.
    Nothing,
    /// Models are loaded that need these rows of [`TABLE`].
    Operators(&'a [bool]),
    /// The memory that they begin with.
    Memory(Frozen<'a>),
}

/// The memory that requests begin with, in two guests, in pieces of whole aligned words.
#[derive(Debug, Clone, Copy)]
pub struct Frozen<'a> {
    /// The guest's that is opened.
    pub memory: &'a [Segment<'a>],
    /// That of the guest whose table is moved, after it did the same.
    pub moved: &'a [Segment<'a>],
}

/// What the module holds, as far as it matters here.
#[derive(Default)]
struct Parts<'a> {
    imports: usize,
    bodies: Vec<FunctionBody<'a>>,
    roots: Vec<u32>,
    /// Functions by their place in the table.
    table: Vec<Option<u32>>,
}

/// What `keeps_export` and what is known of the requests lead to.
pub(super) fn live(
    module: &[u8],
    keeps_export: impl Fn(&str) -> bool,
    known: Known<'_>,
) -> Result<Live, GuestError> {
    let parts = Parts::read(module, keeps_export)?;
    let references = match known {
        Known::Nothing => References::default(),
        Known::Operators(_) | Known::Memory(_) => References::read(module)?,
    };
    let mut walk = Walk {
        functions: vec![false; parts.imports + parts.bodies.len()],
        constants: vec![false; references.constants().len()],
        left_out: BTreeSet::new(),
        pending: parts.roots.clone(),
    };
    match known {
        Known::Nothing => walk.pending.extend(parts.table.iter().flatten()),
        Known::Operators(needed) => {
            walk.left_out = rows_without(needed, &references)?;
            walk.enter_targets(references.of_variables(), &references);
        }
        Known::Memory(frozen) => walk.enter_memory(&parts, &references, frozen)?,
    }
    walk.follow(&parts, &references)?;
    let mut unread = Vec::new();
    if let Known::Memory(_) = known {
        unread.push(references.stack().clone());
        let constants = references.constants().iter().zip(&walk.constants);
        let dead = constants.filter(|(_, is_live)| !**is_live);
        unread.extend(dead.map(|(constant, _)| constant.clone()));
    }
    Ok(Live {
        unread,
        functions: walk.functions,
    })
}

/// Where the table of operators refers to functions that are not needed.
fn rows_without(needed: &[bool], references: &References) -> Result<BTreeSet<usize>, GuestError> {
    let unknown = || GuestError("its table of operators is not this program's".into());
    let table = references.operators().ok_or_else(unknown)?;
    if needed.len() != TABLE.len() {
        return Err(unknown());
    }
    let mut left_out = BTreeSet::new();
    for (i, is_needed) in needed.iter().enumerate() {
        let row = table + i * ROW_BYTES;
        let functions = references.of_data_at(row..row + ROW_BYTES);
        let mut functions = functions.filter(|(_, to)| matches!(to, Target::Function(_)));
        match (functions.next(), functions.next()) {
            (Some((address, _)), None) if address == row + PARSE => {
                left_out.extend((!is_needed).then_some(address));
            }
            _ => return Err(unknown()),
        }
    }
    Ok(left_out)
}

struct Walk {
    functions: Vec<bool>,
    constants: Vec<bool>,
    /// Addresses in constants whose references lead nowhere.
    left_out: BTreeSet<usize>,
    /// Functions to be looked at.
    pending: Vec<u32>,
}

impl Walk {
    /// Notes the functions that the memory holds, and marks constants whose addresses it holds.
    fn enter_memory(
        &mut self,
        parts: &Parts<'_>,
        references: &References,
        frozen: Frozen<'_>,
    ) -> Result<(), GuestError> {
        // Rows are looked up while a model is loaded, and no address of one is kept: what looks like
        // one is a number, and would keep all operators.
        let operators = references.operators();
        let operators = operators.and_then(|table| references.constant_at(table));
        let mut moved = words(frozen.moved, references);
        for (address, word) in words(frozen.memory, references) {
            let place = parts.table.get(word as usize).copied().flatten();
            match (moved.next(), place) {
                (Some((a, w)), _) if (a, w) == (address, word) => {
                    let constant = references.constant_at(word as usize);
                    if let Some(constant) = constant.filter(|_| constant != operators) {
                        self.enter_constant(constant, references);
                    }
                }
                (Some((a, w)), Some(function)) if (a, w) == (address, word + SHIFT) => {
                    self.pending.push(function);
                }
                _ => return Err(two_memories(address)),
            }
        }
        match moved.next() {
            Some((address, _)) => Err(two_memories(address)),
            None => Ok(()),
        }
    }

    /// Marks a constant and those that it leads to, and notes functions.
    fn enter_constant(&mut self, constant: usize, references: &References) {
        let mut pending = vec![constant];
        while let Some(constant) = pending.pop() {
            if std::mem::replace(&mut self.constants[constant], true) {
                continue;
            }
            for (at, target) in references.of_data_at(references.constants()[constant].clone()) {
                match target {
                    _ if self.left_out.contains(&at) => {}
                    Target::Function(function) => self.pending.push(function),
                    Target::Memory(address) => pending.extend(references.constant_at(address)),
                }
            }
        }
    }

    /// Marks everything that pending functions lead to.
    fn follow(&mut self, parts: &Parts<'_>, references: &References) -> Result<(), GuestError> {
        while let Some(function) = self.pending.pop() {
            let function = function as usize;
            match self.functions.get_mut(function) {
                Some(live) if !*live => *live = true,
                _ => continue,
            }
            let body = function.checked_sub(parts.imports);
            let Some(body) = body.and_then(|i| parts.bodies.get(i)) else {
                continue;
            };
            for operator in body.get_operators_reader()? {
                self.pending.extend(callee(&operator?));
            }
            self.enter_targets(references.of_code(body.range()), references);
        }
        Ok(())
    }

    /// Notes functions, and marks constants with what they lead to.
    fn enter_targets(&mut self, targets: impl Iterator<Item = Target>, references: &References) {
        for target in targets {
            match target {
                Target::Function(function) => self.pending.push(function),
                Target::Memory(address) => {
                    if let Some(constant) = references.constant_at(address) {
                        self.enter_constant(constant, references);
                    }
                }
            }
        }
    }
}

/// Addresses and values of the words that are not zero, on no stack and in no constant.
fn words<'a>(
    segments: &'a [Segment<'a>],
    references: &'a References,
) -> impl Iterator<Item = (usize, u32)> + 'a {
    let of_segment = |segment: &'a Segment<'a>| {
        let (words, _) = segment.bytes.as_chunks::<4>();
        let words = words.iter().map(|word| u32::from_le_bytes(*word));
        let words = words.enumerate().filter(|(_, word)| *word != 0);
        words.map(|(i, word)| (segment.address + 4 * i, word))
    };
    let matters = |&(address, _): &(usize, u32)| {
        !references.stack().contains(&address) && references.constant_at(address).is_none()
    };
    segments.iter().flat_map(of_segment).filter(matters)
}

fn two_memories(address: usize) -> GuestError {
    GuestError(format!(
        "the models were loaded twice and differ at address {address}"
    ))
}

impl<'a> Parts<'a> {
    fn read(module: &'a [u8], keeps_export: impl Fn(&str) -> bool) -> Result<Self, GuestError> {
        let mut parts = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        parts.imports += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func && keeps_export(export.name) {
                            parts.roots.push(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => parts.roots.push(func),
                Payload::GlobalSection(section) => {
                    for global in section {
                        for operator in global?.init_expr.get_operators_reader() {
                            parts.roots.extend(callee(&operator?));
                        }
                    }
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        let element = element?;
                        parts.read_elements(element.kind, element.items)?;
                    }
                }
                Payload::CodeSectionEntry(body) => parts.bodies.push(body),
                _ => {}
            }
        }
        Ok(parts)
    }

    /// Notes the functions of a segment at their places; those without a place are roots.
    fn read_elements(
        &mut self,
        kind: ElementKind<'_>,
        items: ElementItems<'_>,
    ) -> Result<(), GuestError> {
        let mut functions = Vec::new();
        match items {
            ElementItems::Functions(section) => {
                for function in section {
                    functions.push(Some(function?));
                }
            }
            ElementItems::Expressions(_, section) => {
                for expression in section {
                    let mut function = None;
                    for operator in expression?.get_operators_reader() {
                        function = function.or(callee(&operator?));
                    }
                    functions.push(function);
                }
            }
        }
        let first = match kind {
            ElementKind::Active { offset_expr, .. } => {
                match offset_expr.get_operators_reader().read()? {
                    Operator::I32Const { value } => usize::try_from(value).ok(),
                    _ => None,
                }
            }
            ElementKind::Passive | ElementKind::Declared => None,
        };
        let Some(first) = first else {
            self.roots.extend(functions.iter().flatten());
            return Ok(());
        };
        let len = self.table.len().max(first + functions.len());
        self.table.resize(len, None);
        self.table[first..first + functions.len()].copy_from_slice(&functions);
        Ok(())
    }
}

/// The function that an instruction calls or takes a reference to.
fn callee(operator: &Operator<'_>) -> Option<u32> {
    match *operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some(function_index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Door, GUEST, MODULE};

    /// What is live where the memory is this word, and this one in the guest whose table is moved.
    fn live_with(word: u32, moved: u32) -> Result<Live, GuestError> {
        let (word, moved) = (word.to_le_bytes(), moved.to_le_bytes());
        let address = GUEST.memory_bytes();
        let memory = [Segment {
            address,
            bytes: &word,
        }];
        let moved = [Segment {
            address,
            bytes: &moved,
        }];
        let frozen = Frozen {
            memory: &memory,
            moved: &moved,
        };
        GUEST.live(Door::Component, Known::Memory(frozen))
    }

    /// A place in the table, and its function, that no request reaches in an empty memory.
    fn dead_place(empty: &Live) -> (u32, usize) {
        let parts = Parts::read(MODULE, |_| false).unwrap();
        let mut places = parts.table.iter().enumerate();
        let dead = |function: usize| !empty.functions[function];
        let found = places.find_map(|(place, function)| {
            let function = function.map(|function| function as usize)?;
            dead(function).then_some((place as u32, function))
        });
        found.expect("most operators are dead")
    }

    #[test]
    fn a_number_is_a_function_only_where_the_moved_table_moves_it() {
        let empty = live_with(0, 0).unwrap();
        let (place, function) = dead_place(&empty);
        let number = live_with(place, place).unwrap();
        assert_eq!(number.functions, empty.functions);
        let held = live_with(place, place + SHIFT).unwrap();
        assert!(held.functions[function]);
        // What is neither is not understood, hence no reason to leave anything out.
        for (word, moved) in [(place, place + 2), (place, 0), (u32::MAX - 1, u32::MAX)] {
            let error = live_with(word, moved).unwrap_err().to_string();
            assert!(error.contains("loaded twice"), "{error}");
        }
    }

    #[test]
    fn a_constant_whose_address_is_held_is_kept_with_what_it_refers_to() {
        let references = References::read(MODULE).unwrap();
        let empty = live_with(0, 0).unwrap();
        let leads_to_dead = |constant: &&Range<usize>| {
            references
                .of_data_at((*constant).clone())
                .any(|(_, target)| match target {
                    Target::Function(function) => !empty.functions[function as usize],
                    Target::Memory(_) => false,
                })
        };
        let vtable = references.constants().iter().find(leads_to_dead).unwrap();
        assert!(empty.unread.contains(vtable));
        let held = live_with(vtable.start as u32, vtable.start as u32).unwrap();
        assert!(!held.unread.contains(vtable));
        for (_, target) in references.of_data_at(vtable.clone()) {
            if let Target::Function(function) = target {
                assert!(held.functions[function as usize]);
            }
        }
    }

    #[test]
    fn rows_of_operators_that_nobody_needs_lead_nowhere() {
        let references = References::read(MODULE).unwrap();
        let table = references.operators().unwrap();
        let parse = |i: usize| {
            let row = references.of_data_at(table + ROW_BYTES * i..table + ROW_BYTES * (i + 1));
            let mut functions = row.filter_map(|(_, target)| match target {
                Target::Function(function) => Some(function as usize),
                Target::Memory(_) => None,
            });
            functions.next().unwrap()
        };
        fn live(known: Known<'_>) -> Live {
            GUEST.live(Door::PureCell, known).unwrap()
        }
        let count = |live: &Live| live.functions.iter().filter(|live| **live).count();
        let relu = TABLE.iter().position(|row| row.op_type == "Relu").unwrap();
        let mut needed = vec![false; TABLE.len()];
        needed[relu] = true;
        let one = live(Known::Operators(&needed));
        needed.fill(true);
        let all = live(Known::Operators(&needed));
        for i in 0..TABLE.len() {
            assert_eq!(one.functions[parse(i)], i == relu, "{:?}", TABLE[i]);
        }
        assert!(count(&one) < count(&all) && count(&all) <= count(&live(Known::Nothing)));
        assert!((0..TABLE.len()).all(|i| all.functions[parse(i)]));
        // In a memory what looks like the address of a row is a number.
        let row = (table + ROW_BYTES) as u32;
        let number = live_with(row, row).unwrap();
        assert_eq!(count(&number), count(&live_with(0, 0).unwrap()));
        // A table of another length is another program's.
        let error = GUEST.live(Door::PureCell, Known::Operators(&needed[1..]));
        assert!(error.unwrap_err().to_string().contains("operators"));
    }
}
