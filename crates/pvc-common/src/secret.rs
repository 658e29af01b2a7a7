//! Texts that must not be shown: passwords and tokens.

use std::fmt;

/// A password or token. `Debug` prints a placeholder and there is no `Display`, so that it reaches no log, error or
/// reply by accident; whoever needs the text says so with [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself. Not for logs, command lines or replies, and not for comparing what a client sent (use a
    /// constant-time comparison of its bytes).
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is there to be kept secret.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A BMC password in the journal would let anyone who reads logs power nodes off.
    #[test]
    fn debug_output_hides_the_text() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{:?} {:?}", secret, Some(&secret)),
            "<secret> Some(<secret>)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
