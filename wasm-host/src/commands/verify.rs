//! `lethe verify DIR…`: do models give the outputs that their folders expect?

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{CommandError, Outcome};
use crate::progress;
use crate::settings::RunSettings;
use crate::verification::TestFolder;
use lethe_sandbox::model_file::ModelFile;

/// Check models against expected outputs, in the layout of the ONNX backend tests
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Folders with model.onnx and test_data_set_0, …; each one is a test
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// How the test of a folder ended.
#[derive(Debug, serde::Serialize)]
struct TestResult {
    name: String,
    passed: bool,
    failures: Vec<String>,
    seconds: f64,
}

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
    tests: Vec<TestResult>,
}

impl Verify {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such folder, or a setting cannot be had.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        super::check_device(settings)?;
        let mut out = std::io::stdout().lock();
        let bar = progress::bar(self.folders.len() as u64, "");
        let mut report = Report::default();
        for folder in &self.folders {
            bar.set_message(folder.display().to_string());
            let model = folder.join("model.onnx");
            if !folder.exists() {
                let reason = format!("no such folder: {}", folder.display());
                return Err(CommandError::Request(reason));
            }
            if !model.exists() {
                let line = format!("skipped {}: no model.onnx in it", folder.display());
                bar.suspend(|| {
                    if json {
                        Ok(())
                    } else {
                        writeln!(out, "{line}")
                    }
                })?;
                report.skipped.push(folder.display().to_string());
            } else {
                let result = test(folder, &model, settings)?;
                bar.suspend(|| {
                    if json {
                        Ok(())
                    } else {
                        print_result(&mut out, &result)
                    }
                })?;
                match result.passed {
                    true => report.passed += 1,
                    false => report.failed += 1,
                }
                report.tests.push(result);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if json {
            let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        } else {
            writeln!(out, "{} passed, {} failed", report.passed, report.failed)?;
        }
        Ok(match report.failed {
            0 => Outcome::Good,
            _ => Outcome::Bad,
        })
    }
}

fn print_result(out: &mut impl Write, result: &TestResult) -> std::io::Result<()> {
    let word = if result.passed { "ok" } else { "FAILED" };
    writeln!(out, "{word:6} {} ({:.1} s)", result.name, result.seconds)?;
    for failure in &result.failures {
        writeln!(out, "       {failure}")?;
    }
    out.flush()
}

fn test(folder: &Path, model: &Path, settings: &RunSettings) -> Result<TestResult, CommandError> {
    let start = Instant::now();
    let failures = match failures(folder, model, settings) {
        Ok(failures) => failures,
        // No test can pass without threads.
        Err(error @ (CommandError::Settings(_) | CommandError::Request(_))) => return Err(error),
        Err(error) => vec![error.to_string()],
    };
    Ok(TestResult {
        name: folder.display().to_string(),
        passed: failures.is_empty(),
        failures,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What is wrong with a folder's model, line by line.
fn failures(
    folder: &Path,
    model: &Path,
    settings: &RunSettings,
) -> Result<Vec<String>, CommandError> {
    let file = ModelFile::open(model)?;
    let decoded = file
        .decode()
        .map_err(|source| super::in_model(model, source.into()))?;
    let runner = super::load(model, &file, &decoded, settings)?;
    let failures = TestFolder::open(folder, &decoded)?.check(&*runner)?;
    Ok(failures.iter().map(ToString::to_string).collect())
}
