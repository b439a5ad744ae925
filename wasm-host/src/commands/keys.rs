//! `lethe keys create|list|revoke`: who may use a server.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::{CommandError, Outcome};
use crate::tenants::keys::{KeyFile, KeyFileError, KeyRecord};

/// Make, list and revoke the API keys of a server
#[derive(Debug, clap::Args)]
pub struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and print it, this once
    Create {
        /// Whose key it is
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What to remember of it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        file: File,
    },
    /// List the keys; what is kept is not enough to use them
    List {
        #[command(flatten)]
        file: File,
    },
    /// Refuse a key from now on
    Revoke {
        /// The key's id: its 16 digits after `lethe_`
        id: String,
        #[command(flatten)]
        file: File,
    },
}

#[derive(Debug, clap::Args)]
struct File {
    /// The file that the server reads
    #[arg(long = "file", value_name = "FILE")]
    path: PathBuf,
}

impl Keys {
    /// Runs the command.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn run(&self, json: bool) -> Result<Outcome, CommandError> {
        let mut out = io::stdout().lock();
        match &self.action {
            Action::Create { tenant, note, file } => {
                let new = KeyFile::create(&file.path, tenant, note.as_deref())?;
                if json {
                    let KeyRecord { id, created, .. } = &new.record;
                    let key = &*new.key;
                    print(
                        &mut out,
                        &json!({"id": id, "tenant": tenant, "created": created, "key": key}),
                    )?;
                } else {
                    writeln!(out, "{}", *new.key)?;
                    eprintln!("The key is not kept and cannot be shown again.");
                }
            }
            Action::List { file } => {
                let keys = KeyFile::list(&file.path)?;
                if json {
                    print(&mut out, &json!({ "keys": keys }))?;
                } else {
                    for key in &keys {
                        let state = match &key.revoked {
                            Some(revoked) => format!("revoked {revoked}"),
                            None => "valid".into(),
                        };
                        let KeyRecord {
                            id,
                            tenant,
                            created,
                            ..
                        } = key;
                        let note = key.note.as_deref().unwrap_or_default();
                        let line = format!("{id}  {tenant:16}  {created}  {state}  {note}");
                        writeln!(out, "{}", line.trim_end())?;
                    }
                }
            }
            Action::Revoke { id, file } => match KeyFile::revoke(&file.path, id) {
                Ok(key) if json => print(&mut out, &json!(key))?,
                Ok(key) => writeln!(out, "revoked {} of {}", key.id, key.tenant)?,
                Err(error @ KeyFileError::UnknownId(_)) => {
                    eprintln!("lethe: {error}");
                    return Ok(Outcome::Bad);
                }
                Err(error) => return Err(error.into()),
            },
        }
        Ok(Outcome::Good)
    }
}

fn print(out: &mut impl Write, value: &serde_json::Value) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    Ok(writeln!(out, "{text}")?)
}
