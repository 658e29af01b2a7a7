//! Who may use the API: holders of a configured token.

use std::fmt;

use actix_web::{HttpMessage, HttpRequest};
use pvc_api::message::ErrorCode;
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;

/// Who may use the API.
#[derive(Clone)]
pub enum AuthPolicy {
    /// Everybody who can reach it.
    Open,
    /// Who sends one of these tokens.
    Tokens(Vec<KnownToken>),
}

/// A token that lets in.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// The token's digest.
    pub digest: TokenDigest,
    /// Whose it is or what it is for, as the configuration says.
    pub description: String,
}

/// Who asks, in words, for what is recorded of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

impl Caller {
    /// Who sent that request.
    pub(crate) fn of(request: &HttpRequest) -> Caller {
        request
            .extensions()
            .get::<Caller>()
            .cloned()
            .unwrap_or_else(|| Caller("somebody".to_owned()))
    }
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
    /// Who sends a request that carries `given`, if that lets in. An empty token never does.
    pub fn caller(&self, given: Option<&[u8]>) -> Option<Caller> {
        match self {
            AuthPolicy::Open => Some(Caller("anybody (authentication is off)".to_owned())),
            AuthPolicy::Tokens(tokens) => {
                let given = TokenDigest::of(given.filter(|given| !given.is_empty())?);
                // All are compared, whichever matches: which one did must not show in the time either.
                let matches: Vec<Choice> = tokens
                    .iter()
                    .map(|token| token.digest.0.ct_eq(&given.0))
                    .collect();
                tokens
                    .iter()
                    .zip(matches)
                    .find_map(|(token, same)| bool::from(same).then_some(token))
                    .map(|token| match token.description.as_str() {
                        "" => Caller("a token without a description".to_owned()),
                        description => Caller(format!("token {description:?}")),
                    })
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
        let policy = AuthPolicy::Tokens(vec![known("correct-horse"), known("battery")]);
        assert_eq!(
            policy.caller(Some(b"correct-horse")),
            Some(Caller("token \"for correct-horse\"".to_owned()))
        );
        assert_eq!(
            policy.caller(Some(b"battery")),
            Some(Caller("token \"for battery\"".to_owned()))
        );
        for wrong in [
            None,
            Some(&b""[..]),
            Some(b"correct"),
            Some(b"correct-horse "),
            Some(b"Battery"),
            Some(b"correct-horsebattery"),
        ] {
            assert_eq!(policy.caller(wrong), None, "{wrong:?}");
        }
        assert_eq!(AuthPolicy::Tokens(Vec::new()).caller(Some(b"x")), None);
        assert!(AuthPolicy::Open.caller(None).is_some());
    }

    fn known(token: &str) -> KnownToken {
        KnownToken {
            digest: TokenDigest::of(token.as_bytes()),
            description: format!("for {token}"),
        }
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let text = format!("{:?}", AuthPolicy::Tokens(vec![known("s3cret")]));
        assert_eq!(text, "Tokens(1)");
    }
}
