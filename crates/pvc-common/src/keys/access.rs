//! Keys of accounts and of the audit log (schema 16). All of `/access` is secret: see
//! [`holds_secret`](super::holds_secret).

use pvc_core::access::{AuditPage, AuditRequest, Digest, SessionRecord, TokenRecord, TokenUse, UserRecord};
use pvc_core::ids::AccountName;

use super::{Container, Key};

/// A token that was made while the cluster ran.
pub fn token(name: &AccountName) -> Key<TokenRecord> {
    Key::at(format!("/access/tokens/{name}"))
}

/// When that token was last used; empty before its first use.
pub fn token_use(name: &AccountName) -> Key<Option<TokenUse>> {
    Key::at(format!("/access/tokens/{name}/used"))
}

/// Tokens by name.
pub fn tokens() -> Container<AccountName> {
    Container::at("/access/tokens")
}

/// A person who logs in with a password.
pub fn user(name: &AccountName) -> Key<UserRecord> {
    Key::at(format!("/access/users/{name}"))
}

/// Users by name.
pub fn users() -> Container<AccountName> {
    Container::at("/access/users")
}

/// A browser that has logged in, by the digest of what its cookie holds.
pub fn session(id: &Digest) -> Key<SessionRecord> {
    Key::at(format!("/access/sessions/{}", id.to_hex()))
}

/// Sessions by the digests of what their cookies hold, in hexadecimal digits.
pub fn sessions() -> Container<String> {
    Container::at("/access/sessions")
}

/// The note of a request whose change is made and whose result is not in the log yet.
pub fn audit_note(name: &str) -> Key<AuditRequest> {
    Key::at(format!("/audit/notes/{name}"))
}

/// Notes by their names.
pub fn audit_notes() -> Container<String> {
    Container::at("/audit/notes")
}

/// A page of the audit log. Numbers grow by one.
pub fn audit_page(number: u64) -> Key<AuditPage> {
    Key::at(format!("/audit/pages/{number:010}"))
}

/// Pages of the audit log by number.
pub fn audit_pages() -> Container<u64> {
    Container::at("/audit/pages")
}
