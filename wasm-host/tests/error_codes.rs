//! Every code that an error can have is explained in `docs/errors.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The codes between two such marks.
fn codes(text: &str, mark: char) -> BTreeSet<String> {
    let codes = text.split(mark).filter(|part| {
        let name = part.strip_prefix("LETHE-").unwrap_or_default();
        let is_code = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty() && name.chars().all(is_code)
    });
    codes.map(str::to_owned).collect()
}

#[test]
fn every_error_code_is_explained() {
    let mut files = Vec::new();
    for folder in ["engine/src", "wasi-server/src", "wasm-host/src", "web/src"] {
        sources(&root().join(folder), &mut files);
    }
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let used: BTreeSet<String> = texts.flat_map(|text| codes(&text, '"')).collect();
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let explained = codes(&page, '`');
    assert!(used.len() > 50, "{used:?}");
    let missing: Vec<_> = used.difference(&explained).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}

#[test]
fn codes_are_found_where_they_stand_alone() {
    let found = codes(r#"f("LETHE-A-B", "LETHE-", "see LETHE-C", "LETHE-x")"#, '"');
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["LETHE-A-B"]);
}
