//! `lethe verify-receipt RECEIPT --model MODEL --request FILE`: does running it again give the
//! answer that a receipt states?

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lethe_engine::{Numerics, Session};
use lethe_server::{Handler, Model, Request, Response};
use serde_json::json;
use zeroize::Zeroizing;

use super::{CommandError, Outcome};
use crate::receipt::{Receipt, ReceiptError, Verdict};
use crate::settings::{Isolation, NumericsName, RunSettings};
use crate::signing::PublicKey;
use lethe_sandbox::GraphSettings;
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{ModelSource, Sandbox, SandboxSettings};

/// Check a receipt by running its request again
#[derive(Debug, clap::Args)]
pub struct VerifyReceipt {
    /// The file with the receipt
    receipt: PathBuf,
    /// The ONNX file
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The body of the request
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The server's key, or the file that holds it [default: what the receipt itself says]
    #[arg(long, allow_hyphen_values = true, value_name = "KEY")]
    public_key: Option<String>,
}

impl VerifyReceipt {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be read, is no receipt or no model.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        super::check_device(settings)?;
        let key = self.public_key.as_deref();
        let key = key.map(PublicKey::from_text_or_file).transpose();
        let key = key.map_err(|error| CommandError::Request(error.to_string()))?;
        let text = read(&self.receipt)?;
        let text = std::str::from_utf8(&text).map_err(|_| {
            CommandError::Request(format!(
                "{}: no receipt: not a text",
                self.receipt.display()
            ))
        })?;
        let receipt = match Receipt::read(text, key) {
            Ok(receipt) => receipt,
            Err(error @ (ReceiptError::Signature | ReceiptError::Key { .. })) => {
                return report(json, "refused", &[error.to_string()], None);
            }
            Err(error) => {
                let path = self.receipt.display();
                return Err(CommandError::Request(format!("{path}: {error}")));
            }
        };
        let file = ModelFile::open(&self.model)?;
        let source = ModelSource::of_file(receipt.model.name.clone(), &file)
            .map_err(|source| super::in_sandbox(&self.model, source))?;
        let body = read(&self.request)?;
        let settings = RunSettings {
            numerics: NumericsName(Numerics::Reproducible),
            ..settings.clone()
        };
        let mut failed = None;
        let verdict = receipt.confirm(&source, &body, |request| {
            self.answer(&settings, receipt.settings.graph, &file, &source, request)
                .unwrap_or_else(|error| {
                    failed = Some(error);
                    lethe_server::Problem::new(500, "LETHE-INTERNAL", "not run").into()
                })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let (word, lines) = match &verdict {
            Verdict::Confirmed => ("confirmed", Vec::new()),
            Verdict::Differs(differences) => {
                let lines = differences.iter().map(ToString::to_string);
                ("differs", lines.collect())
            }
            Verdict::NotReproducible => {
                let line = "the run had fast numerics, which promise no bits: only answers of a \
                            server with --numerics reproducible can be confirmed";
                ("refused", vec![line.to_owned()])
            }
        };
        report(json, word, &lines, Some((&receipt, key.is_some())))
    }

    /// Runs a request as the settings say.
    fn answer(
        &self,
        settings: &RunSettings,
        graph: GraphSettings,
        file: &ModelFile,
        source: &ModelSource,
        request: &Request<'_>,
    ) -> Result<Response, CommandError> {
        match settings.isolation.unwrap_or(Isolation::None) {
            Isolation::None => {
                let mut options = settings.session_options(file)?;
                graph.put_into(&mut options);
                let session = file
                    .decode()
                    .and_then(|model| Session::from_model(&model, &options))
                    .map_err(|error| super::in_model(&self.model, error.into()))?;
                let model = Model::new(source.name.clone(), session);
                let handler = Handler::new(vec![model], request.body.len() as u64);
                Ok(handler.handle(request))
            }
            Isolation::Sandbox => {
                let settings = SandboxSettings {
                    graph,
                    ..super::sandbox_settings(settings)?
                };
                let sandbox = Sandbox::new(source, &settings)
                    .map_err(|error| super::in_sandbox(&self.model, error))?;
                Ok(sandbox.handle(request))
            }
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let content = fs::read(path).map_err(|error| {
        CommandError::Request(format!("cannot read {}: {error}", path.display()))
    })?;
    Ok(Zeroizing::new(content))
}

/// Says what was found out; `receipt` is one whose signature is right, and whether with a key that
/// was given.
fn report(
    json: bool,
    word: &str,
    lines: &[String],
    receipt: Option<(&Receipt, bool)>,
) -> Result<Outcome, CommandError> {
    let mut out = io::stdout().lock();
    if json {
        let report = json!({
            "verdict": word,
            "reasons": lines,
            "receipt": receipt.map(|(receipt, _)| receipt),
            "key_was_given": receipt.is_some_and(|(_, was_given)| was_given),
        });
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{word}")?;
        for line in lines {
            writeln!(out, "  {line}")?;
        }
        if let Some((receipt, was_given)) = receipt {
            let whose = match was_given {
                true => "as given",
                false => "as the receipt itself says: give --public-key",
            };
            writeln!(out, "  signed with {}, {whose}", receipt.public_key)?;
        }
    }
    match word {
        "confirmed" => Ok(Outcome::Good),
        _ => Ok(Outcome::Bad),
    }
}
