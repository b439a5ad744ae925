//! What a node of an operator may have, as one text in the operator's row:
//!
//! ```text
//! X roi@..13 roi?@13.. sizes? -> Y : axes@18.. mode
//! inputs                      -> outputs : attributes
//! ```
//!
//! | after a name | an input or output | an attribute |
//! | --- | --- | --- |
//! | nothing | is required | is read |
//! | `?` | is optional | |
//! | `*`, `+` | and any number more; at least one for `+` | |
//! | `!` | is refused: the standard has it, Lethe has not | |
//! | `~` | | says nothing that changes an answer, and is not read |
//! | `=1` | | is refused with any other value, and is not read |
//! | `@..13`, `@13..`, `@11..13` | is there in these opsets, the last one excluded | the same |
//!
//! A node that has more is not computed as if it had not: what it asks for would be lost silently. That
//! the texts are those of the standard, and that what they take is read, is tested by
//! `scripts/signatures.py`.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::graph::attributes::Attribute;

/// The newest opsets that the table knows, by domain.
pub const NEWEST_OPSETS: &[(&str, i64)] = &[
    (super::ONNX_DOMAIN, 28),
    ("ai.onnx.ml", 5),
    ("com.microsoft", 1),
    (super::LETHE_DOMAIN, 1),
];

/// The newest opset of a domain that the table knows; `None` where it knows nothing of the domain.
pub(crate) fn newest_opset(domain: &str) -> Option<i64> {
    let known = NEWEST_OPSETS.iter().find(|(known, _)| *known == domain);
    known.map(|&(_, newest)| newest)
}

/// What a `Constant` may have; it has no row, for it is no step of a run.
pub(crate) const CONSTANT: Signature = Signature(
    "-> output : sparse_value value value_float value_floats value_int value_ints value_string \
     value_strings",
);

/// The text of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Signature(pub &'static str);

/// How often an input or output may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Optional,
    /// Any number more, this one included where it is true.
    Many {
        at_least_one: bool,
    },
    Refused,
}

/// What is done with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Let,
    Only(&'static str),
    Refused,
}

/// A name with what is written after it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: &'static str,
    mark: &'static str,
    first: i64,
    /// The first opset without it.
    end: i64,
}

impl Entry {
    fn of(text: &'static str) -> Self {
        let (text, opsets) = text.split_once('@').unwrap_or((text, ".."));
        let (first, end) = opsets.split_once("..").unwrap_or((opsets, ""));
        let at = text.find(['?', '*', '+', '!', '~', '=']);
        let (name, mark) = text.split_at(at.unwrap_or(text.len()));
        Self {
            name,
            mark,
            first: first.parse().unwrap_or(i64::MIN),
            end: end.parse().unwrap_or(i64::MAX),
        }
    }

    fn is_in(&self, opset: i64) -> bool {
        (self.first..self.end).contains(&opset)
    }

    fn count(&self) -> Count {
        match self.mark {
            "" => Count::One,
            "*" => Count::Many {
                at_least_one: false,
            },
            "+" => Count::Many { at_least_one: true },
            mark if mark.ends_with('!') => Count::Refused,
            _ => Count::Optional,
        }
    }

    fn attribute_use(&self) -> Use {
        match self.mark {
            "" => Use::Read,
            "~" => Use::Let,
            mark => mark.strip_prefix('=').map_or(Use::Refused, Use::Only),
        }
    }
}

impl Signature {
    /// The texts of inputs, outputs and attributes.
    fn parts(self) -> [&'static str; 3] {
        let (inputs, rest) = self.0.split_once("->").unwrap_or((self.0, ""));
        let (outputs, attributes) = rest.split_once(" : ").unwrap_or((rest, ""));
        [inputs, outputs, attributes]
    }

    /// Checks a node: which of the inputs and outputs it lists are there, and its attributes.
    ///
    /// # Errors
    /// Names the first one that is surplus, missing, unknown in the node's opset or not supported.
    pub(crate) fn check(
        self,
        domain: &str,
        inputs: &[bool],
        outputs: &[bool],
        attributes: &Attributes,
    ) -> Result<(), OpError> {
        let [of_inputs, of_outputs, of_attributes] = self.parts();
        check_list("input", of_inputs, inputs, attributes.opset)?;
        check_list("output", of_outputs, outputs, attributes.opset)?;
        let known = || of_attributes.split_ascii_whitespace().map(Entry::of);
        for (name, value) in attributes.iter() {
            // Tools note things for themselves under such names; onnxruntime lets them be too.
            if name.starts_with("__") {
                continue;
            }
            let entry = known().find(|e| e.name == name && e.is_in(attributes.opset));
            let entry =
                entry.ok_or_else(|| unknown(name, of_attributes, domain, attributes.opset))?;
            let refused = match entry.attribute_use() {
                Use::Read | Use::Let => false,
                Use::Only(text) => !is_written(value, text),
                Use::Refused => true,
            };
            if refused {
                let other = entry.attribute_use() != Use::Refused;
                let value = if other { " with this value" } else { "" };
                return Err(OpError::unsupported(format!("attribute {name}{value}")));
            }
        }
        Ok(())
    }
}

/// Whether a value is what a text says.
fn is_written(value: &Attribute, text: &str) -> bool {
    match value {
        Attribute::Int(n) => text.parse() == Ok(*n),
        Attribute::Float(n) => text.parse() == Ok(*n),
        Attribute::String(s) => s == text,
        _ => false,
    }
}

fn unknown(name: &str, known: &'static str, domain: &str, opset: i64) -> OpError {
    let entries = || known.split_ascii_whitespace().map(Entry::of);
    let here = entries().filter(|e| e.is_in(opset)).map(|e| e.name);
    let names = here.collect::<Vec<_>>().join(", ");
    let known = match entries().find(|e| e.name == name) {
        Some(e) if opset < e.first => format!("it is of opset {} and later", e.first),
        Some(e) => format!("it is of opsets before {}", e.end),
        None if names.is_empty() => "the operator has none".into(),
        None => format!("the operator has {names}"),
    };
    let newest = newest_opset(domain).unwrap_or(opset);
    OpError::UnknownAttribute {
        name: name.into(),
        known: format!("{known} (opsets are known up to {newest})"),
    }
}

/// Checks which of the listed inputs or outputs are there.
fn check_list(
    what: &'static str,
    known: &'static str,
    listed: &[bool],
    opset: i64,
) -> Result<(), OpError> {
    let entries = known.split_ascii_whitespace().map(Entry::of);
    let entries = || entries.clone().filter(|e| e.is_in(opset));
    // Empty names at the end say no more than none.
    let len = listed.iter().rposition(|&is| is).map_or(0, |last| last + 1);
    let mut at = 0;
    for entry in entries() {
        let is_there = listed.get(at).copied().unwrap_or(false);
        match entry.count() {
            Count::One if what == "input" && !is_there => {
                return Err(OpError::MissingInput { input: entry.name });
            }
            Count::Refused if is_there => {
                return Err(OpError::unsupported(format!("the {what} {}", entry.name)));
            }
            Count::Many { at_least_one } => {
                return match at_least_one && what == "input" && len <= at {
                    true => Err(OpError::MissingInput { input: entry.name }),
                    false => Ok(()),
                };
            }
            _ => {}
        }
        at += 1;
    }
    if len <= at {
        return Ok(());
    }
    let names: Vec<&str> = entries().map(|e| e.name).collect();
    Err(OpError::Surplus {
        what,
        found: len,
        most: at,
        known: names.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESIZE: Signature =
        Signature("X roi@..13 roi?@13.. extra?! -> Y? : axes@18.. mode old@..13 note~ one=1");

    fn check(
        signature: Signature,
        opset: i64,
        inputs: &[bool],
        outputs: usize,
        attributes: &[(&str, Attribute)],
    ) -> Result<(), String> {
        let mut all = Attributes::new(opset, outputs);
        for (name, value) in attributes {
            all.insert(name, value.clone());
        }
        let outputs = vec![true; outputs];
        let checked = signature.check("ai.onnx", inputs, &outputs, &all);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn inputs_are_counted_in_their_opset() {
        let many = Signature("cond v_initial* -> v_final+");
        let some = Signature("data_0+ -> sum");
        let none = Signature("-> output");
        for (signature, opset, inputs, expected) in [
            (RESIZE, 10, &[true, true][..], None),
            (RESIZE, 13, &[true], None),
            (RESIZE, 13, &[true, true, false, false], None),
            (RESIZE, 10, &[true], Some("input roi is missing")),
            (RESIZE, 10, &[true, false], Some("input roi is missing")),
            (RESIZE, 13, &[false, true], Some("input X is missing")),
            (
                RESIZE,
                13,
                &[true, false, true],
                Some("unsupported: the input extra"),
            ),
            (
                RESIZE,
                13,
                &[true, false, false, true],
                Some("4 inputs, the operator has at most 3: X, roi, extra"),
            ),
            (many, 1, &[true], None),
            (many, 1, &[true; 9], None),
            (some, 1, &[], Some("input data_0 is missing")),
            (some, 1, &[true, true, true], None),
            (none, 1, &[], None),
            (none, 1, &[true], Some("1 input, the operator has none")),
        ] {
            let found = check(signature, opset, inputs, 1, &[]);
            assert_eq!(
                found.err().as_deref(),
                expected,
                "{signature:?} {opset} {inputs:?}"
            );
        }
    }

    #[test]
    fn surplus_outputs_are_refused() {
        assert_eq!(check(RESIZE, 13, &[true], 0, &[]), Ok(()));
        let found = check(RESIZE, 13, &[true], 2, &[]);
        assert_eq!(
            found,
            Err("2 outputs, the operator has at most 1: Y".into())
        );
    }

    #[test]
    fn attributes_are_those_of_the_opset() {
        let int = Attribute::Int;
        for (opset, name, value, expected) in [
            (13, "mode", int(3), None),
            (13, "note", int(3), None),
            (13, "__tool", int(3), None),
            (13, "one", int(1), None),
            (
                13,
                "one",
                int(2),
                Some("unsupported: attribute one with this value"),
            ),
            (18, "axes", int(3), None),
            (
                17,
                "axes",
                int(3),
                Some(
                    "attribute axes is unknown: it is of opset 18 and later (opsets are known up to 28)",
                ),
            ),
            (
                13,
                "old",
                int(3),
                Some(
                    "attribute old is unknown: it is of opsets before 13 (opsets are known up to 28)",
                ),
            ),
            (12, "old", int(3), None),
            (
                17,
                "mod",
                int(3),
                Some(
                    "attribute mod is unknown: the operator has mode, note, one (opsets are known up to 28)",
                ),
            ),
        ] {
            let found = check(RESIZE, opset, &[true, true], 1, &[(name, value)]);
            assert_eq!(found.err().as_deref(), expected, "{name} in {opset}");
        }
        let found = check(Signature("X -> Y"), 13, &[true], 1, &[("axis", int(1))]);
        assert_eq!(
            found,
            Err(
                "attribute axis is unknown: the operator has none (opsets are known up to 28)"
                    .into()
            )
        );
    }

    /// What a text could say wrongly without a word: marks that no entry has, names that stand twice.
    #[test]
    fn the_texts_of_the_table_are_well_formed() {
        for row in &super::super::TABLE {
            for (part, marks) in row.signature.parts().into_iter().zip([
                &["", "?", "*", "+", "!", "?!"][..],
                &["", "?", "*", "+", "!", "?!"],
                &["", "~", "!"],
            ]) {
                let entries: Vec<Entry> = part.split_ascii_whitespace().map(Entry::of).collect();
                for (i, entry) in entries.iter().enumerate() {
                    let is_mark = marks.contains(&entry.mark) || entry.mark.starts_with('=');
                    assert!(is_mark && !entry.name.is_empty(), "{row:?}: {entry:?}");
                    let again = entries[..i]
                        .iter()
                        .any(|e| e.name == entry.name && e.end > entry.first);
                    assert!(!again, "{row:?}: {} stands twice", entry.name);
                }
            }
            let newest = NEWEST_OPSETS
                .iter()
                .find(|(domain, _)| *domain == row.domain);
            assert!(
                newest.is_some_and(|(_, opset)| row.since <= *opset),
                "{row:?}"
            );
        }
    }
}
