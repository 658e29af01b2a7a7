//! Who asks.

use std::fmt;

use actix_web::{HttpMessage, HttpRequest};
use pvc_core::access::Role;
use pvc_core::ids::AccountName;

/// Who asks, and what he may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// What he may do.
    pub role: Role,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Nobody has said who he is: a route that is open, or authentication is off.
    Anybody,
    /// The holder of a token of the configuration.
    ConfiguredToken {
        /// What the configuration says of it.
        description: String,
    },
    /// The holder of a token that was made while the cluster ran.
    Token {
        /// The token's name.
        name: AccountName,
    },
    /// A user who has logged in.
    User {
        /// His name.
        name: AccountName,
    },
}

impl Caller {
    /// Whoever asks where nobody has to say who he is.
    pub(crate) fn anybody(role: Role) -> Caller {
        Caller {
            who: Who::Anybody,
            role,
        }
    }

    /// Who sent that request. One that was let in without a name may look and no more.
    pub(crate) fn of(request: &HttpRequest) -> Caller {
        request
            .extensions()
            .get::<Caller>()
            .cloned()
            .unwrap_or_else(|| Caller::anybody(Role::Viewer))
    }
}

/// In words, for what is recorded of a change.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Anybody => f.write_str("anybody (authentication is off)"),
            Who::ConfiguredToken { description } if description.is_empty() => {
                f.write_str("a token without a description")
            }
            Who::ConfiguredToken { description } => write!(f, "token {description:?}"),
            Who::Token { name } => write!(f, "token {name}"),
            Who::User { name } => write!(f, "user {name}"),
        }
    }
}
