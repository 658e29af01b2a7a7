//! Asking before something is done that interrupts or removes.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::{CliError, Result};

/// Whether questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// They are.
    Ask,
    /// Everything is taken as confirmed.
    Assume,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Yes,
    /// Leave it.
    No,
}

/// Whether somebody is there to answer.
pub(crate) fn is_answered() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks `question`.
pub(crate) fn confirm(question: &str, asking: Asking) -> Result<Answer> {
    if asking == Asking::Assume {
        return Ok(Answer::Yes);
    }
    if !is_answered() {
        return Err(CliError::usage(format!(
            "{question} Nobody is there to answer: confirm with --yes (-y)"
        )));
    }
    anstream::eprint!("{question} [y/N]: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::failure(format!("Can not read the answer: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(Answer::Yes),
        _ => {
            anstream::eprintln!("Aborted.");
            Ok(Answer::No)
        }
    }
}

/// Asks for `name` to be typed: for what a wrong machine's name would make a disaster.
pub(crate) fn confirm_by_name(question: &str, name: &str, asking: Asking) -> Result<Answer> {
    if asking == Asking::Assume {
        return Ok(Answer::Yes);
    }
    if !is_answered() {
        return Err(CliError::usage(format!(
            "{question} Nobody is there to answer: confirm with --yes (-y)"
        )));
    }
    anstream::eprint!("{question}\nType the node's name to confirm: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::failure(format!("Can not read the answer: {error}")))?;
    if answer.trim() == name {
        return Ok(Answer::Yes);
    }
    anstream::eprintln!("That is not the name of the node. Nothing was done.");
    Ok(Answer::No)
}
