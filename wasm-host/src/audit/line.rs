//! The lines of an audit log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::signing::{PublicKey, SigningKey};
use lethe_sandbox::hex;

/// The hash before the first line.
pub(super) const NOTHING_BEFORE: Hash = [0; 32];

pub(super) type Hash = [u8; 32];

const HASH_FIELD: &str = ",\"hash\":\"";
const SIGNATURE_FIELD: &str = ",\"signature\":\"";
/// `,"hash":"` and 64 digits and `"`.
const HASH_FIELD_BYTES: usize = HASH_FIELD.len() + 64 + 1;
/// `,"signature":"` and base64 of 64 bytes and `"`.
const SIGNATURE_FIELD_BYTES: usize = SIGNATURE_FIELD.len() + 88 + 1;

/// What is written down of a request. No field can hold a payload: texts are cut short, and what
/// came from the client is never in one as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Who asked; empty where that is not known.
    pub tenant: String,
    /// With which key.
    pub key_id: String,
    /// The request's id, as the server gave it.
    pub request_id: String,
    /// The route's pattern, such as `POST /api/v1/infer`: never the path that was sent.
    pub route: String,
    /// Where a request came from that was turned away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The model that it named, where there is one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// SHA-256 of the model's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// Length of the request's body.
    pub request_bytes: u64,
    /// Length of the answer's body.
    pub answer_bytes: u64,
    /// The answer's status; 0 where the client was gone before it.
    pub status: u16,
    /// The error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// From the request's arrival to its answer.
    pub duration_us: u64,
    /// What was wiped after it.
    pub wiped_bytes: u64,
}

/// What changed beside the requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// Of what: `model`, `keys`, `tokens`, `settings`, `certificate`.
    pub subject: String,
    /// What became of it: `loaded`, `failed`, `evicted`, `unloaded`, `read`.
    pub change: String,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
}

/// Requests of one source that were turned away, after one that has a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusals {
    /// The tenant; empty where that is not known.
    pub tenant: String,
    /// Where they came from; of tenants that are known, from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How many.
    pub count: u64,
    /// How many with which code.
    pub codes: BTreeMap<Cow<'static, str>, u64>,
    /// Since when, in milliseconds before this line.
    pub within_ms: u64,
}

/// Longest text in a line.
const TEXT_BYTES: usize = 256;

/// Cuts texts to what a line takes.
fn cut<'a>(texts: impl IntoIterator<Item = &'a mut String>) {
    for text in texts {
        if text.len() > TEXT_BYTES {
            text.truncate(text.floor_char_boundary(TEXT_BYTES));
        }
    }
}

/// Why a checkpoint is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Some lines or seconds have passed.
    Periodic,
    /// The log goes on in another file.
    Rotated,
    /// The log was closed.
    Closed,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Content {
    /// A process begins to write, here or in a new file.
    Open {
        format: u32,
        lethe: String,
        public_key: PublicKey,
    },
    /// A request.
    Request(Entry),
    /// A model that came or went, keys or settings that were read.
    Change(Change),
    /// Requests that were turned away.
    Refusals(Refusals),
    /// A signature over all before it.
    Checkpoint { reason: Reason },
}

impl Content {
    /// The content with its texts cut to what a line takes.
    fn cut(mut self) -> Self {
        match &mut self {
            Self::Request(entry) => {
                cut([
                    &mut entry.tenant,
                    &mut entry.key_id,
                    &mut entry.request_id,
                    &mut entry.route,
                ]);
                let options = [
                    &mut entry.source,
                    &mut entry.model,
                    &mut entry.model_sha256,
                    &mut entry.code,
                ];
                cut(options.into_iter().flatten());
            }
            Self::Change(change) => {
                cut([&mut change.subject, &mut change.change]);
                let options = [&mut change.model, &mut change.sha256, &mut change.code];
                cut(options.into_iter().flatten());
            }
            Self::Refusals(refusals) => {
                cut([&mut refusals.tenant]
                    .into_iter()
                    .chain(&mut refusals.source));
            }
            Self::Open { .. } | Self::Checkpoint { .. } => {}
        }
        self
    }
}

/// A line before it is hashed, and how it is read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) seq: u64,
    pub(super) time: String,
    #[serde(flatten)]
    pub(super) content: Content,
    pub(super) prev: String,
}

/// Where a chain has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the last line.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: Hash,
}

fn signed(head: Head) -> String {
    let hash = hex::encode(head.hash);
    format!("lethe-audit-checkpoint-v1\n{}\n{hash}\n", head.seq)
}

/// Appends a line to `text`, and returns the chain's new head. Checkpoints are signed.
pub(super) fn append(
    text: &mut String,
    head: Head,
    time: String,
    content: Content,
    key: &SigningKey,
) -> Head {
    let is_checkpoint = matches!(content, Content::Checkpoint { .. });
    let body = Body {
        seq: head.seq + 1,
        time,
        content: content.cut(),
        prev: hex::encode(head.hash),
    };
    let mut line = serde_json::to_string(&body).expect("numbers and texts are JSON");
    line.pop();
    let head = Head {
        seq: body.seq,
        hash: Sha256::digest(&line).into(),
    };
    text.push_str(&line);
    text.push_str(HASH_FIELD);
    text.push_str(&hex::encode(head.hash));
    text.push('"');
    if is_checkpoint {
        text.push_str(SIGNATURE_FIELD);
        text.push_str(&STANDARD.encode(key.sign(signed(head).as_bytes())));
        text.push('"');
    }
    text.push_str("}\n");
    head
}

/// A line that was read, its hash being right.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) body: Body,
    pub(super) prev: Hash,
    pub(super) head: Head,
    signature: Option<Vec<u8>>,
}

/// What can be wrong with a line by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineError {
    /// It is no line of an audit log.
    Malformed,
    /// Its content is not what its hash says.
    Changed,
}

impl Line {
    /// Reads a line, given without its end.
    pub(super) fn read(text: &[u8]) -> Result<Self, LineError> {
        let text = std::str::from_utf8(text).map_err(|_| LineError::Malformed)?;
        let open = text.strip_suffix("\"}").ok_or(LineError::Malformed)?;
        let end = text.len() - "}".len();
        let is_signed = field_at(text, end, SIGNATURE_FIELD_BYTES, SIGNATURE_FIELD);
        let (rest_end, signature) = match is_signed {
            Some(start) => {
                let base64 = &open[start + SIGNATURE_FIELD.len()..];
                let bytes = STANDARD.decode(base64).map_err(|_| LineError::Malformed)?;
                (start, Some(bytes))
            }
            None => (end, None),
        };
        let start = field_at(text, rest_end, HASH_FIELD_BYTES, HASH_FIELD);
        let start = start.ok_or(LineError::Malformed)?;
        let digits = &text[start + HASH_FIELD.len()..rest_end - 1];
        // As they are written: digits of the other case are another line.
        let hash = hex::decode(digits).filter(|hash| hex::encode(hash) == digits);
        let hash: Hash = hash.ok_or(LineError::Malformed)?;
        let found: Hash = Sha256::digest(&text[..start]).into();
        if found != hash {
            return Err(LineError::Changed);
        }
        let body = format!("{}}}", &text[..start]);
        let body: Body = serde_json::from_str(&body).map_err(|_| LineError::Malformed)?;
        Ok(Self {
            prev: hex::decode(&body.prev).ok_or(LineError::Malformed)?,
            head: Head {
                seq: body.seq,
                hash,
            },
            body,
            signature,
        })
    }

    /// Whether it is signed with this key.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        let signature = self.signature.as_ref();
        signature.is_some_and(|signature| key.verifies(signed(self.head).as_bytes(), signature))
    }
}

/// Where a field of `len` bytes begins that ends at `end`.
fn field_at(text: &str, end: usize, len: usize, field: &str) -> Option<usize> {
    let start = end.checked_sub(len)?;
    let found = text.get(start..end)?;
    (found.starts_with(field) && found.ends_with('"')).then_some(start)
}
