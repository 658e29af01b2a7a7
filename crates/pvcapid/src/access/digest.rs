//! Digests of tokens and sessions, and the random texts that they are made of.

use std::fmt;

use pvc_api::message::ErrorCode;
use pvc_core::access::{Digest, Guess};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;

/// A configured token's digest: tokens are compared by digests of one length, so that neither length nor content of a
/// known token shows in the time that a comparison takes. Only in memory: such a token may be one that can be guessed.
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
    pub(super) fn same(&self, other: &TokenDigest) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// The digest's bytes, to be hashed with a secret.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What tells this token from another where failures are counted.
    pub(super) fn guess(&self) -> Guess {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Guess(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What a stored digest is of: one that is good for one purpose must be good for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A token that was made while the cluster ran.
    Token,
    /// What a session's cookie holds: the session's name in the store.
    Session,
    /// What somebody logged in with, together with what his session's cookie holds.
    Credential,
}

impl Purpose {
    fn context(self) -> &'static str {
        match self {
            Purpose::Token => "PVC 2026-11-29 API token",
            Purpose::Session => "PVC 2026-11-29 session cookie",
            Purpose::Credential => "PVC 2026-11-29 credential of a session",
        }
    }
}

/// The digest that is stored of a random secret. Nobody can try out 256 random bits, so a fast hash does.
pub(super) fn stored(purpose: Purpose, secret: &[u8]) -> Digest {
    Digest::new(blake3::derive_key(purpose.context(), secret))
}

/// Whether both are the same, in a time that tells nothing.
pub(super) fn same(a: &Digest, b: &Digest) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Fresh random bytes.
///
/// # Errors
/// 500 if the kernel gives none.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        ApiError::new(
            ErrorCode::Internal,
            format!("The kernel gives no random bytes: {error}"),
        )
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_one_purpose_is_good_for_no_other() {
        let secret = b"0123456789abcdef";
        let token = stored(Purpose::Token, secret);
        assert!(same(&token, &stored(Purpose::Token, secret)));
        assert!(!same(&token, &stored(Purpose::Token, b"0123456789abcdee")));
        assert!(!same(&token, &stored(Purpose::Session, secret)));
        assert!(!same(&token, &stored(Purpose::Credential, secret)));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
    }
}
