//! Asking before something is done that interrupts or removes.

use std::io::{BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::error::{CliError, Exit, Result};

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

/// What Ctrl-C sends.
const CTRL_C: u8 = 3;

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
    let typed = read_secret(&mut std::io::stdin().lock());
    drop(hidden);
    // The end of the line was not seen either.
    anstream::eprintln!();
    typed
}

fn read_secret(input: &mut impl BufRead) -> Result<String> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::failure(format!("Can not read what is typed: {error}"));
    let mut typed = Vec::new();
    loop {
        let more = input.fill_buf().map_err(|error| failed(&error))?;
        let end = more.iter().position(|byte| matches!(*byte, b'\n' | CTRL_C));
        let Some((line, last)) = end.and_then(|end| Some((more.get(..end)?, *more.get(end)?))) else {
            let taken = more.len();
            typed.extend_from_slice(more);
            input.consume(taken);
            if taken == 0 {
                break;
            }
            continue;
        };
        typed.extend_from_slice(line);
        let taken = line.len() + 1;
        input.consume(taken);
        if last == CTRL_C {
            return Err(CliError::new(Exit::Interrupted, "Nothing was done"));
        }
        break;
    }
    String::from_utf8(typed).map_err(|error| failed(&error))
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
        // Ctrl-C would end the program and leave the terminal so. It ends the line instead.
        without.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        without.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_and_ctrl_c_is_none() {
        let read = |mut typed: &[u8]| read_secret(&mut typed);
        assert_eq!(read(b" a b \nrest").unwrap(), " a b ");
        assert_eq!(read(b"no end").unwrap(), "no end");
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"half\x03").unwrap_err().exit, Exit::Interrupted);
        assert_eq!(read(b"\xff\n").unwrap_err().exit, Exit::Failure);
    }
}
