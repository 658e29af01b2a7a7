//! Asking before something is done that interrupts or removes.

use std::io::{BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

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
        return Err(nobody(question));
    }
    match typed(&format!("{question} [y/N]: "))?
        .to_ascii_lowercase()
        .as_str()
    {
        "y" | "yes" => Ok(Answer::Yes),
        _ => {
            anstream::eprintln!("Aborted.");
            Ok(Answer::No)
        }
    }
}

/// Asks for a node's name to be typed: for what a wrong machine's name would make a disaster.
pub(crate) fn confirm_by_name(question: &str, name: &str, asking: Asking) -> Result<Answer> {
    confirm_typed(question, "Type the node's name to confirm: ", name, asking)
}

/// Asks for a word to be typed: for what nobody should do by habit.
pub(crate) fn confirm_by_word(question: &str, word: &str, asking: Asking) -> Result<Answer> {
    confirm_typed(question, &format!("Type '{word}' to confirm: "), word, asking)
}

fn confirm_typed(question: &str, prompt: &str, wanted: &str, asking: Asking) -> Result<Answer> {
    if asking == Asking::Assume {
        return Ok(Answer::Yes);
    }
    if !is_answered() {
        return Err(nobody(question));
    }
    if typed(&format!("{question}\n{prompt}"))? == wanted {
        return Ok(Answer::Yes);
    }
    anstream::eprintln!("That is something else. Nothing was done.");
    Ok(Answer::No)
}

fn nobody(question: &str) -> CliError {
    CliError::usage(format!(
        "{question} Nobody is there to answer: confirm with --yes (-y)"
    ))
}

/// What is typed after `prompt`.
fn typed(prompt: &str) -> Result<String> {
    anstream::eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::failure(format!("Can not read the answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// What is typed after `prompt`, without its being seen.
pub(crate) fn typed_secret(prompt: &str) -> Result<String> {
    anstream::eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    let hidden = Hidden::begin();
    let mut secret = String::new();
    let read = std::io::stdin().lock().read_line(&mut secret);
    drop(hidden);
    // The end of the line was not seen either.
    anstream::eprintln!();
    read.map_err(|error| CliError::failure(format!("Can not read what is typed: {error}")))?;
    let secret = secret.strip_suffix('\n').unwrap_or(&secret);
    Ok(secret.to_owned())
}

/// While it lives the terminal does not show what is typed.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Hidden {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Hidden(None);
        };
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHO);
        // What was typed ahead was seen, and was not meant for this.
        match tcsetattr(&stdin, OptionalActions::Flush, &without) {
            Ok(()) => Hidden(Some(before)),
            Err(_) => Hidden(None),
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
