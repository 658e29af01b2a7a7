//! Who is let in beside the tokens of the configuration: the records of tokens, users and sessions.
//!
//! None of them holds what a client sends, only what it is checked against. Times are seconds since 1970 on the clock
//! of the daemon that writes or reads them: an expiry is a promise to people, and nothing in the cluster's own working
//! hangs on it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Role;
use crate::ids::AccountName;
use crate::records::Record;

/// The digest of a token, a session or a credential; in the store as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// The digest with these bytes.
    pub fn new(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it stands in the store.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

/// A digest of a weak token could be tried out, so none is shown by accident.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<digest>")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_hex()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        let bytes = unhex(&text).ok_or(InvalidDigest)?;
        bytes.try_into().map(Digest).map_err(|_| InvalidDigest)
    }
}

/// `bytes` in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that lower-case hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

/// `/access/tokens/NAME`: a token that was made while the cluster ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What its holder may do.
    pub role: Role,
    /// What its text is checked against.
    pub digest: Digest,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: String,
    /// From when on it lets nobody in; never if there is none.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

impl Record for TokenRecord {}

/// `/access/tokens/NAME/used`: when a token was last used. Beside its record, so that noting it disturbs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// When, to the minute or so.
    pub at: u64,
    /// From which address.
    pub from: String,
}

impl Record for TokenUse {}

/// `/access/users/NAME`: a person who logs in with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// What he may do.
    pub role: Role,
    /// What his password is checked against.
    pub password: PasswordHash,
    /// When he was added.
    pub created_at: u64,
    /// Who added him.
    pub created_by: String,
}

impl Record for UserRecord {}

/// A password under Argon2id, with what it takes to compute it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    /// The salt, in hexadecimal digits.
    pub salt: String,
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// The result.
    pub hash: Digest,
}

/// `/access/sessions/ID`: a browser that has logged in. Named by the digest of what its cookie holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Who logged in.
    pub account: Account,
    /// The digest of what he logged in with, as it was then: once it is another, the session is over.
    pub credential: Digest,
    /// When he logged in.
    pub created_at: u64,
    /// From when on the session is over.
    pub expires_at: u64,
    /// From which address he logged in.
    pub from: String,
}

impl Record for SessionRecord {}

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Account {
    /// A user's.
    User {
        /// His name.
        name: AccountName,
    },
    /// That of a token which was made while the cluster ran.
    Token {
        /// Its name.
        name: AccountName,
    },
    /// That of a token of the configuration.
    Configured,
}

/// Whether what expires at `expires_at` is over.
pub fn is_over(expires_at: Option<u64>, now: u64) -> bool {
    expires_at.is_some_and(|expires_at| now >= expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_hexadecimal_digits_and_read_back() {
        let digest = Digest::new(std::array::from_fn(|index| u8::try_from(index * 8).unwrap()));
        let text = digest.to_hex();
        assert_eq!(text.len(), 64);
        assert_eq!(Digest::try_from(text.clone()), Ok(digest));
        for bad in [
            "",
            "00",
            &text[1..],
            &text.to_uppercase(),
            &text.replace('8', "g"),
        ] {
            assert_eq!(Digest::try_from(bad.to_owned()), Err(InvalidDigest), "{bad:?}");
        }
        assert_eq!(format!("{digest:?}"), "<digest>");
    }

    // Stored records of one release are read by the next.
    #[test]
    fn records_are_stored_as_they_always_were() {
        let token = TokenRecord {
            role: Role::Viewer,
            digest: Digest::new([0; 32]),
            description: "dashboards".to_owned(),
            created_at: 1_795_348_800,
            created_by: "user \"ann\"".to_owned(),
            expires_at: None,
        };
        let text = String::from_utf8(token.encode()).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                "{{\"v\":1,\"role\":\"viewer\",\"digest\":\"{zeros}\",\"description\":\"dashboards\",\
                 \"created_at\":1795348800,\"created_by\":\"user \\\"ann\\\"\",\"expires_at\":null}}"
            )
        );
        assert_eq!(TokenRecord::decode(text.as_bytes()).unwrap(), token);
        let session = SessionRecord {
            account: Account::User {
                name: AccountName::new("ann").unwrap(),
            },
            credential: Digest::new([1; 32]),
            created_at: 1,
            expires_at: 2,
            from: "192.0.2.7".to_owned(),
        };
        let text = session.encode();
        assert!(String::from_utf8_lossy(&text).contains(r#""account":{"kind":"user","name":"ann"}"#));
        assert_eq!(SessionRecord::decode(&text).unwrap(), session);
    }

    #[test]
    fn what_expires_is_over_at_that_second() {
        assert!(!is_over(None, u64::MAX));
        assert!(!is_over(Some(10), 9));
        assert!(is_over(Some(10), 10));
    }
}
