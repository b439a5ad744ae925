//! Which functions of a module can still be called from outside.

use wasmparser::{ElementItems, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef};

use super::GuestError;

/// For each function, imports first, whether a root leads to it: an export that is kept, the start
/// function, or a place in a table, from where anything may call it.
pub(super) fn live(
    module: &[u8],
    keeps_export: impl Fn(&str) -> bool,
) -> Result<Vec<bool>, GuestError> {
    let mut imports = 0;
    let mut bodies: Vec<FunctionBody<'_>> = Vec::new();
    let mut pending: Vec<u32> = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imports += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func && keeps_export(export.name) {
                        pending.push(export.index);
                    }
                }
            }
            Payload::StartSection { func, .. } => pending.push(func),
            Payload::GlobalSection(section) => {
                for global in section {
                    for operator in global?.init_expr.get_operators_reader() {
                        pending.extend(target(&operator?));
                    }
                }
            }
            Payload::ElementSection(section) => {
                for element in section {
                    match element?.items {
                        ElementItems::Functions(functions) => {
                            for function in functions {
                                pending.push(function?);
                            }
                        }
                        ElementItems::Expressions(_, expressions) => {
                            for expression in expressions {
                                for operator in expression?.get_operators_reader() {
                                    pending.extend(target(&operator?));
                                }
                            }
                        }
                    }
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body),
            _ => {}
        }
    }
    let mut live = vec![false; imports + bodies.len()];
    while let Some(function) = pending.pop() {
        let function = function as usize;
        match live.get_mut(function) {
            Some(live) if !*live => *live = true,
            _ => continue,
        }
        let Some(body) = function.checked_sub(imports).and_then(|i| bodies.get(i)) else {
            continue;
        };
        for operator in body.get_operators_reader()? {
            pending.extend(target(&operator?));
        }
    }
    Ok(live)
}

/// The function that an instruction calls or takes a reference to.
fn target(operator: &Operator<'_>) -> Option<u32> {
    match *operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some(function_index),
        _ => None,
    }
}
