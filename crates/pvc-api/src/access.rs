//! Who may use the API, and what was done through it. Additions to PVC 1.0.3.
//!
//! Times are seconds since 1970.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A token, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its name; those of the configuration have none.
    pub name: Option<String>,
    /// Where it comes from.
    pub source: TokenSource,
    /// What its holder may do: `viewer`, `operator` or `admin`.
    pub role: String,
    /// What it is for.
    pub description: String,
    /// When it was made, if it is known.
    pub created_at: Option<u64>,
    /// Who made it, if it is known.
    pub created_by: Option<String>,
    /// From when on it lets nobody in; null if it never expires.
    pub expires_at: Option<u64>,
    /// Whether that time has come.
    pub expired: bool,
    /// When it was last used, to a minute or so; null if it was not, or if it is one of the configuration.
    pub last_used_at: Option<u64>,
    /// From which address it was last used.
    pub last_used_from: Option<String>,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The configuration file of each node.
    Configuration,
    /// It was made while the cluster ran.
    Created,
}

/// A token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// For a person to read.
    pub message: String,
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub role: String,
    /// Its text. It is never shown again.
    pub token: String,
    /// From when on it lets nobody in; null if it never expires.
    pub expires_at: Option<u64>,
}

/// A person who logs in with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// His name.
    pub name: String,
    /// What he may do.
    pub role: String,
    /// When he was added.
    pub created_at: u64,
    /// Who added him.
    pub created_by: String,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Who, in words.
    pub who: String,
    /// What he may do.
    pub role: String,
    /// When his session ends; null for a token.
    pub expires_at: Option<u64>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// The request's identity, as in its reply and in the daemon's log.
    pub request_id: String,
    /// When it came, by the clock of `node`.
    pub at: u64,
    /// The node whose daemon it came to.
    pub node: String,
    /// Who sent it, in words.
    pub who: String,
    /// What he may do; null for one who was not let in.
    pub role: Option<String>,
    /// The address it came from.
    pub from: String,
    /// What was asked for: the operation's id in the description of the API.
    pub operation: String,
    /// By which method.
    pub method: String,
    /// On what: the path.
    pub target: String,
    /// With which parameters; secrets and long ones are left out.
    pub parameters: String,
    /// How it was answered: the status code. Null while it is under way, or if its daemon ended before it could say.
    pub status: Option<u16>,
    /// What was answered, in words.
    pub message: String,
}
