//! The tokens of the configuration.

use std::fmt;

use pvc_core::access::Role;
use subtle::Choice;

use super::digest::TokenDigest;
use super::{Caller, Who};

/// Who may use the API, as the configuration says.
#[derive(Clone)]
pub enum AuthPolicy {
    /// Everybody who can reach it.
    Open,
    /// Who sends one of these tokens, or has an account in the store.
    Tokens(Vec<KnownToken>),
}

/// A token that lets in.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// The token's digest.
    pub digest: TokenDigest,
    /// Whose it is or what it is for, as the configuration says.
    pub description: String,
    /// What its holder may do.
    pub role: Role,
}

impl fmt::Debug for AuthPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthPolicy::Open => f.write_str("Open"),
            AuthPolicy::Tokens(tokens) => write!(f, "Tokens({})", tokens.len()),
        }
    }
}

impl AuthPolicy {
    /// The holder of the token with that digest.
    pub fn holder(&self, given: &TokenDigest) -> Option<Caller> {
        let AuthPolicy::Tokens(tokens) = self else {
            return None;
        };
        // All are compared, whichever matches: which one did must not show in the time either.
        let matches: Vec<Choice> = tokens.iter().map(|token| token.digest.same(given)).collect();
        tokens
            .iter()
            .zip(matches)
            .find_map(|(token, same)| bool::from(same).then_some(token))
            .map(KnownToken::holder)
    }
}

impl KnownToken {
    /// Its holder as a caller.
    pub(super) fn holder(&self) -> Caller {
        Caller {
            who: Who::ConfiguredToken {
                description: self.description.clone(),
            },
            role: self.role,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(token: &str, role: Role) -> KnownToken {
        KnownToken {
            digest: TokenDigest::of(token.as_bytes()),
            description: format!("for {token}"),
            role,
        }
    }

    #[test]
    fn only_a_whole_token_opens() {
        // PVC 1.0.3 took any part of a token, the empty text included: anybody could log in.
        let policy = AuthPolicy::Tokens(vec![
            known("correct-horse", Role::Admin),
            known("battery", Role::Viewer),
        ]);
        let holder = |token: &[u8]| policy.holder(&TokenDigest::of(token));
        let first = holder(b"correct-horse").unwrap();
        assert_eq!(first.to_string(), "token \"for correct-horse\"");
        assert_eq!(first.role, Role::Admin);
        assert_eq!(holder(b"battery").unwrap().role, Role::Viewer);
        for wrong in [
            &b""[..],
            b"correct",
            b"correct-horse ",
            b"Battery",
            b"correct-horsebattery",
        ] {
            assert_eq!(holder(wrong), None, "{wrong:?}");
        }
        assert_eq!(
            AuthPolicy::Tokens(Vec::new()).holder(&TokenDigest::of(b"x")),
            None
        );
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let text = format!("{:?}", AuthPolicy::Tokens(vec![known("s3cret", Role::Admin)]));
        assert_eq!(text, "Tokens(1)");
        assert_eq!(format!("{:?}", TokenDigest::of(b"s3cret")), "TokenDigest");
    }
}
