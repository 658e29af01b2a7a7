//! Who may use the API: holders of a configured token.

use std::fmt;

use pvc_api::message::ErrorCode;
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;

/// Who may use the API.
#[derive(Clone)]
pub enum AuthPolicy {
    /// Everybody who can reach it.
    Open,
    /// Who sends one of these tokens.
    Tokens(Vec<TokenDigest>),
}

impl fmt::Debug for AuthPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthPolicy::Open => f.write_str("Open"),
            AuthPolicy::Tokens(tokens) => write!(f, "Tokens({})", tokens.len()),
        }
    }
}

/// A token's digest: tokens are compared by digests of one length, so that neither length nor content of a
/// configured token shows in the time that a comparison takes.
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
}

impl AuthPolicy {
    /// Whether a request that carries `given` is let in. An empty token never is.
    pub fn allows(&self, given: Option<&[u8]>) -> bool {
        match self {
            AuthPolicy::Open => true,
            AuthPolicy::Tokens(tokens) => {
                let Some(given) = given.filter(|given| !given.is_empty()) else {
                    return false;
                };
                let given = TokenDigest::of(given);
                // All are compared, whichever matches: which one did must not show either.
                let any = tokens
                    .iter()
                    .fold(Choice::from(0), |any, token| any | token.0.ct_eq(&given.0));
                any.into()
            }
        }
    }

    /// The answer to a request that is not let in.
    pub fn refusal(token_given: bool) -> ApiError {
        ApiError::new(
            ErrorCode::Unauthorized,
            if token_given {
                "The token in X-Api-Key is not one that this cluster knows"
            } else {
                "Authentication is required: send a token of this cluster in the header X-Api-Key"
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_opens() {
        // PVC 1.0.3 took any part of a token, the empty text included: anybody could log in.
        let policy = AuthPolicy::Tokens(vec![
            TokenDigest::of(b"correct-horse"),
            TokenDigest::of(b"battery"),
        ]);
        assert!(policy.allows(Some(b"correct-horse")));
        assert!(policy.allows(Some(b"battery")));
        for wrong in [
            None,
            Some(&b""[..]),
            Some(b"correct"),
            Some(b"correct-horse "),
            Some(b"Battery"),
            Some(b"correct-horsebattery"),
        ] {
            assert!(!policy.allows(wrong), "{wrong:?}");
        }
        assert!(!AuthPolicy::Tokens(Vec::new()).allows(Some(b"x")));
        assert!(AuthPolicy::Open.allows(None));
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let text = format!("{:?}", AuthPolicy::Tokens(vec![TokenDigest::of(b"s3cret")]));
        assert_eq!(text, "Tokens(1)");
    }
}
