//! `SECURITY.md` promises nothing without a test: each promise names tests, and they exist.

use std::collections::HashSet;
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

/// The names of the functions in `text` that are tests which run: one that is ignored holds no
/// promise.
fn tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_ignored = true;
        } else if line.starts_with("#[") || line.starts_with("//") {
            // Other attributes may stand between.
        } else {
            let runs = is_test && !is_ignored;
            let function = line.split("fn ").nth(1).filter(|_| runs);
            names.extend(
                function
                    .and_then(|rest| rest.split('(').next())
                    .map(Into::into),
            );
            (is_test, is_ignored) = (false, false);
        }
    }
    names
}

/// The promises: items of the lists in the part on promises, each as one line.
fn promises(text: &str) -> Vec<String> {
    let part = text
        .split("\n## ")
        .find(|part| part.starts_with("What is promised"));
    let mut promises: Vec<String> = Vec::new();
    for line in part.unwrap().lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("- "), promises.last_mut()) {
            (Some(begin), _) => promises.push(begin.into()),
            (None, Some(last)) => *last += &format!(" {}", line.trim()),
            (None, None) => {}
        }
    }
    promises
}

/// The names in backquotes after `Held by` in a promise.
fn held_by(promise: &str) -> Vec<&str> {
    let after = promise
        .split_once("Held by ")
        .map_or("", |(_, after)| after);
    // Backquotes part the text: every other piece, from the second on, stands between two of them.
    let quoted = after.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains('_')).collect()
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let folders = [
        "engine/kernels/src",
        "engine/src",
        "wasi-server/src",
        "wasm-host/sandbox/src",
        "wasm-host/src",
        "wasm-host/tests",
        "tests/tests",
    ];
    let mut files = Vec::new();
    for folder in folders {
        sources(&root().join(folder), &mut files);
    }
    let tests: HashSet<String> = files
        .iter()
        .flat_map(|file| tests(&fs::read_to_string(file).unwrap()))
        .collect();
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let promises = promises(&security);
    assert!(promises.len() >= 20, "{promises:?}");
    for promise in &promises {
        let names = held_by(promise);
        assert!(!names.is_empty(), "no test holds: {promise}");
        for name in names {
            assert!(tests.contains(name), "no test is named {name}: {promise}");
        }
    }
}

#[test]
fn a_promise_without_a_test_is_noticed() {
    let text = "# A\n\n## What is promised\n\n### B\n- **One.** Held by `a_b`,\n  `c_d`; more, by `e_f`.\n- Two.\n\n## Else\n- Three.\n";
    let promises = promises(text);
    assert_eq!(promises.len(), 2, "{promises:?}");
    assert_eq!(held_by(&promises[0]), ["a_b", "c_d", "e_f"]);
    assert_eq!(held_by(&promises[1]), [""; 0]);
    let source = "#[test]\n#[should_panic]\nfn one() {\n}\nfn two() {}\n#[tokio::test(x)]\nasync fn three() {\n}\n\
                  #[test]\n#[ignore = \"slow\"]\nfn four() {}\n#[ignore]\n#[test]\nfn five() {}\n#[test]\nfn six() {}\n";
    assert_eq!(tests(source), ["one", "three", "six"]);
}
