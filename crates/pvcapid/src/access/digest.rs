//! Digests of tokens.

use std::fmt;

use pvc_core::access::Guess;
use subtle::{Choice, ConstantTimeEq};

/// A token's digest: tokens are compared by digests of one length, so that neither length nor content of a known
/// token shows in the time that a comparison takes.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

impl TokenDigest {
    /// The digest of `token`.
    pub fn of(token: &[u8]) -> TokenDigest {
        TokenDigest(*blake3::hash(token).as_bytes())
    }

    /// Whether both are digests of one token, in a time that tells nothing.
    pub(crate) fn same(&self, other: &TokenDigest) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// What tells this token from another where failures are counted.
    pub(crate) fn guess(&self) -> Guess {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Guess(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}
