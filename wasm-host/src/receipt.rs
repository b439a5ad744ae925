//! Receipts: a signed statement that this request to this model got this answer, which anyone with
//! the model and the request can check by running it again.
//!
//! A receipt is a JWS in its compact form (RFC 7515), signed with Ed25519:
//!
//! ```text
//! base64url({"alg":"EdDSA","typ":"lethe-receipt"}) . base64url(statement as JSON) . base64url(signature)
//! ```
//!
//! What is signed are the bytes of the first two pieces as they are sent, so nothing depends on how
//! JSON is written. Hashes stand for the model, the request's body and the answer's: a receipt holds
//! no payload.
//!
//! Running again gives the same bytes only in reproducible mode. A receipt of a run with fast
//! numerics says so, and cannot be confirmed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lethe_engine::{Level, Numerics};
use lethe_server::{Request, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::settings::{Isolation, NumericsName};
use crate::signing::{PublicKey, SigningKey};
use crate::timestamp;
use lethe_sandbox::GraphSettings;
use lethe_sandbox::ModelSource;
use lethe_sandbox::guest::GuestBuild;
use lethe_sandbox::hex;

const HEADER: &str = "{\"alg\":\"EdDSA\",\"typ\":\"lethe-receipt\"}";
/// Longest receipt that is looked at.
const RECEIPT_BYTES: usize = 64 << 10;

/// A model: its name, and hashes of what it was loaded from. Made once, when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIdentity {
    /// The name that requests use.
    pub name: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// SHA-256 of the files with its external data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl ModelIdentity {
    /// What stands for this model.
    ///
    /// # Errors
    /// When one of its files cannot be read or has changed since it was opened.
    pub fn of(source: &ModelSource) -> io::Result<Self> {
        let files = source.files.iter();
        Ok(Self {
            name: source.name.clone(),
            sha256: source.model.sha256()?,
            files: files
                .map(|(path, content)| Ok((path.clone(), content.sha256()?)))
                .collect::<io::Result<_>>()?,
        })
    }
}

/// What computed the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIdentity {
    /// Lethe's version.
    pub lethe: String,
    /// SHA-256 of the guest that runs in sandboxes.
    pub guest_sha256: String,
}

impl EngineIdentity {
    /// This program's.
    pub fn here() -> Self {
        Self {
            lethe: env!("CARGO_PKG_VERSION").into(),
            guest_sha256: hex::encode(GuestBuild::default().guest().hash()),
        }
    }
}

/// How the answer was computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// `none` or `sandbox`.
    pub isolation: String,
    /// `fast` or `reproducible`.
    pub numerics: String,
    /// Whether the host computed the hot kernels.
    pub native_kernels: bool,
    /// Instruction set of the native kernels.
    pub kernels: String,
    /// Where they ran: `cpu`, or what a GPU calls itself. Receipts of versions that did not say have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What was done to the model's graph, which may be less than what was asked for.
    pub graph: GraphSettings,
}

impl RunIdentity {
    /// How runs with these settings are computed.
    pub fn new(
        isolation: Isolation,
        numerics: Numerics,
        native_kernels: bool,
        level: Level,
        device: &str,
        graph: GraphSettings,
    ) -> Self {
        Self {
            isolation: isolation.to_string(),
            numerics: NumericsName(numerics).to_string(),
            native_kernels,
            kernels: level.to_string(),
            device: Some(device.into()),
            graph,
        }
    }
}

/// A request; its body is a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestIdentity {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The body's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The media types that the client takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Bytes of JSON at the beginning of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_bytes: Option<u64>,
    /// SHA-256 of the body.
    pub sha256: String,
    /// Length of the body.
    pub bytes: u64,
}

impl RequestIdentity {
    fn of(request: &Request<'_>) -> Self {
        Self {
            method: request.method.into(),
            path: request.path.into(),
            content_type: request.content_type.map(Into::into),
            accept: request.accept.map(Into::into),
            json_bytes: request.json_bytes,
            sha256: sha256(request.body),
            bytes: request.body.len() as u64,
        }
    }

    /// The request with this body.
    fn with<'a>(&'a self, body: &'a [u8]) -> Request<'a> {
        Request {
            method: &self.method,
            path: &self.path,
            content_type: self.content_type.as_deref(),
            accept: self.accept.as_deref(),
            json_bytes: self.json_bytes,
            body,
        }
    }
}

/// An answer; its body is a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerIdentity {
    /// The status.
    pub status: u16,
    /// SHA-256 of the body.
    pub sha256: String,
    /// Length of the body.
    pub bytes: u64,
}

impl AnswerIdentity {
    fn of(answer: &Response) -> Self {
        Self {
            status: answer.status,
            sha256: sha256(&answer.body),
            bytes: answer.body.len() as u64,
        }
    }
}

impl fmt::Display for AnswerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            sha256,
            bytes,
        } = self;
        write!(f, "status {status}, {bytes} bytes, sha256 {sha256}")
    }
}

/// What a receipt states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The format: 1.
    pub version: u32,
    /// The model.
    pub model: ModelIdentity,
    /// The program.
    pub engine: EngineIdentity,
    /// The settings.
    pub settings: RunIdentity,
    /// The request.
    pub request: RequestIdentity,
    /// The answer.
    pub answer: AnswerIdentity,
    /// When it was given.
    pub time: String,
    /// The key of the signature.
    pub public_key: PublicKey,
}

/// Why a text is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is not of the form of one.
    #[error("no receipt: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the key.
    #[error("the receipt's signature is wrong: it was changed, or is not signed with this key")]
    Signature,
    /// It is signed with another key than was given.
    #[error("the receipt is signed with {found}, not with {expected}")]
    Key {
        /// The key that was given.
        expected: PublicKey,
        /// The one it names.
        found: PublicKey,
    },
    /// A later format.
    #[error("the receipt has version {0}, which is not known here")]
    Version(u32),
}

impl Receipt {
    /// States that `request` got `answer`, now, and signs it: the text of a receipt.
    pub fn issue(
        model: &ModelIdentity,
        settings: &RunIdentity,
        request: &Request<'_>,
        answer: &Response,
        key: &SigningKey,
    ) -> String {
        let receipt = Self {
            version: 1,
            model: model.clone(),
            engine: EngineIdentity::here(),
            settings: settings.clone(),
            request: RequestIdentity::of(request),
            answer: AnswerIdentity::of(answer),
            time: timestamp::now(),
            public_key: key.public_key(),
        };
        receipt.sign(key)
    }

    fn sign(&self, key: &SigningKey) -> String {
        let statement = serde_json::to_vec(self).expect("numbers and texts are JSON");
        let mut text = URL_SAFE_NO_PAD.encode(HEADER);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(statement, &mut text);
        let signature = key.sign(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }

    /// Reads a receipt and checks its signature, with the key it names unless another is given. A
    /// receipt that names its own key is one that anybody can have made.
    ///
    /// # Errors
    /// When it is none, or not signed with the key.
    pub fn read(text: &str, key: Option<PublicKey>) -> Result<Self, ReceiptError> {
        let malformed = |reason| move |_| ReceiptError::Malformed(reason);
        let text = text.trim();
        if text.len() > RECEIPT_BYTES {
            return Err(ReceiptError::Malformed("it is too long"));
        }
        let pieces: Vec<&str> = text.split('.').collect();
        let [header, statement, signature] = pieces[..] else {
            return Err(ReceiptError::Malformed(
                "expected three pieces with dots between",
            ));
        };
        // The algorithm is this one, whatever a header may say.
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return Err(ReceiptError::Malformed(
                "its header is not that of a receipt",
            ));
        }
        let bytes = URL_SAFE_NO_PAD.decode(statement);
        let bytes = bytes.map_err(|_| ReceiptError::Malformed("it is not base64url"))?;
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_| ReceiptError::Malformed("it is not base64url"))?;
        let receipt: Self = serde_json::from_slice(&bytes)
            .map_err(malformed("its statement is not that of a receipt"))?;
        let found = receipt.public_key;
        match key {
            Some(expected) if expected != found => {
                return Err(ReceiptError::Key { expected, found });
            }
            _ => {}
        }
        let signed = &text[..header.len() + 1 + statement.len()];
        if !found.verifies(signed.as_bytes(), &signature) {
            return Err(ReceiptError::Signature);
        }
        if receipt.version != 1 {
            return Err(ReceiptError::Version(receipt.version));
        }
        Ok(receipt)
    }

    /// Checks the receipt against a model and a request's body, and runs it again with `run`, which
    /// must compute in reproducible mode.
    pub fn confirm(
        &self,
        model: &ModelSource,
        body: &[u8],
        run: impl FnOnce(&Request<'_>) -> Response,
    ) -> Verdict {
        if self.settings.numerics != NumericsName(Numerics::Reproducible).to_string() {
            return Verdict::NotReproducible;
        }
        let mut differences = Differences::default();
        let identity = match ModelIdentity::of(model) {
            Ok(identity) => identity,
            Err(error) => {
                let found = format!("a file that cannot be read: {error}");
                differences.compare("model", &found, &self.model.sha256);
                return Verdict::Differs(differences.0);
            }
        };
        differences.compare("model", &identity.sha256, &self.model.sha256);
        let files = |model: &ModelIdentity| {
            let files = model.files.iter();
            let files: Vec<String> = files.map(|(path, hash)| format!("{path} {hash}")).collect();
            files.join(", ")
        };
        differences.compare("external data", &files(&identity), &files(&self.model));
        differences.compare("request", &sha256(body), &self.request.sha256);
        if !differences.0.is_empty() {
            // Another question: its answer says nothing.
            return Verdict::Differs(differences.0);
        }
        let found = AnswerIdentity::of(&run(&self.request.with(body)));
        if found != self.answer {
            differences.compare("answer", &found.to_string(), &self.answer.to_string());
            // Versions may differ and give the same bits; where they do not, this may be why.
            let here = EngineIdentity::here();
            differences.compare("lethe", &here.lethe, &self.engine.lethe);
            differences.compare("guest", &here.guest_sha256, &self.engine.guest_sha256);
        }
        match differences.0.is_empty() {
            true => Verdict::Confirmed,
            false => Verdict::Differs(differences.0),
        }
    }
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn compare(&mut self, what: &'static str, found: &str, stated: &str) {
        if found != stated {
            self.0.push(Difference {
                what,
                found: found.into(),
                stated: stated.into(),
            });
        }
    }
}

/// What running again has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "differences", rename_all = "snake_case")]
pub enum Verdict {
    /// The same request to the same model gives the same answer.
    Confirmed,
    /// Something is not as stated.
    Differs(Vec<Difference>),
    /// The run had fast numerics: another run may give other bits, and neither would be wrong.
    NotReproducible,
}

/// Something that is not as the receipt states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// What it is here.
    pub found: String,
    /// What the receipt states.
    pub stated: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            found,
            stated,
        } = self;
        write!(f, "{what}: found {found}, stated {stated}")
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
