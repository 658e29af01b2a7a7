//! `pvc cluster init|backup|restore`: the store of the cluster as a whole.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::confirm::{Answer, confirm, confirm_by_word};
use crate::error::{CliError, Result};
use crate::output;
use crate::private;
use crate::session::Session;

/// What the API wants to hear before it replaces the store.
const REALLY: (&str, &str) = ("yes-i-really-mean-it", "yes");

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Remove everything that is in the store first
    #[arg(short, long)]
    overwrite: bool,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Save it in this file, readable for its owner alone
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// With the passwords of BMCs in it
    #[arg(long)]
    secrets: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    filename: PathBuf,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

impl Init {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let asking = session.asking(self.yes);
        let answer = if self.overwrite {
            confirm_by_word(
                "Everything that the store holds is REMOVED: nodes, VMs, networks, all records of volumes. What runs, runs on \
                 and is known to nobody.",
                "overwrite",
                asking,
            )?
        } else {
            confirm("Set the store up for a new cluster?", asking)?
        };
        if answer == Answer::No {
            return Ok(());
        }
        let overwrite = if self.overwrite { "True" } else { "False" };
        session.say(
            &session
                .client
                .post("/initialize", &[("overwrite", overwrite), REALLY])?,
        );
        Ok(())
    }
}

impl Backup {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let query: &[(&str, &str)] = if self.secrets { &[("secrets", "true")] } else { &[] };
        let text = content(session.client.get("/backup", query)?);
        let Some(file) = &self.file else {
            output::line(text.trim_end());
            return Ok(());
        };
        let keys = keys(&text)?;
        private::write(file, &text)
            .map_err(|error| CliError::failure(format!("Can not write {}: {error}", file.display())))?;
        session.say(&format!("Saved {keys} keys of the store in {}", file.display()));
        Ok(())
    }
}

impl Restore {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let text = fs::read_to_string(&self.filename).map_err(|error| {
            CliError::failure(format!("Can not read {}: {error}", self.filename.display()))
        })?;
        let keys = keys(&text).map_err(|_| {
            CliError::failure(format!(
                "{} is not a backup as 'pvc cluster backup' makes it",
                self.filename.display()
            ))
        })?;
        let question = format!(
            "Everything that the store holds is REPLACED by the {keys} keys in {}. The nodes then hold still until 'pvc \
             cluster adopt'.",
            self.filename.display()
        );
        if confirm_by_word(&question, "restore", session.asking(self.yes))? == Answer::No {
            return Ok(());
        }
        session.say(
            &session
                .client
                .post("/restore", &[("cluster_data", text.as_str()), REALLY])?,
        );
        Ok(())
    }
}

/// The text of a backup: PVC 1.0.3 sends it as a string within JSON.
fn content(reply: Value) -> String {
    match reply {
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            reply.to_string()
        }
    }
}

/// How many keys are in a backup.
fn keys(text: &str) -> Result<usize> {
    match serde_json::from_str(text) {
        Ok(Value::Object(keys)) => Ok(keys.len()),
        Ok(_) | Err(_) => Err(CliError::failure("What the API sent is not a backup")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backup_is_an_object_in_either_wrapping() {
        assert_eq!(keys(&content(json!("{\"/a\": \"1\"}"))).unwrap(), 1);
        assert_eq!(keys(&content(json!({"/a": "1", "/b": "2"}))).unwrap(), 2);
        assert!(keys("[]").is_err());
        assert!(keys("").is_err());
    }
}
