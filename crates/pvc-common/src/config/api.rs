//! The API daemon.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pvc_core::access::Role;

use super::finding::Problem;
use super::section::{Section, Value};
use super::values::{Port, Seconds};
use crate::secret::Secret;

/// The `api` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// The address to listen on. Default: the floating address of the upstream network. It may be one that is not on
    /// this node at the moment.
    pub listen_address: IpAddr,
    /// The port to listen on. Default 7370.
    pub listen_port: u16,
    /// Who may use the API.
    pub authentication: Authentication,
    /// Signs the session cookies of browsers.
    pub session_secret: Option<Secret>,
    /// Certificate and key; without them the API speaks plain HTTP.
    pub tls: Option<Tls>,
    /// How long the store may have been silent before nothing is shown any more, in seconds. Default 5; at least 2, since
    /// the store is asked about once a second.
    pub max_age: Duration,
}

/// Who may use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Everyone who can reach it.
    Open,
    /// Who has one of these keys.
    Tokens(Vec<ApiToken>),
}

/// A key of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Whose it is or what it is for.
    pub description: String,
    /// The key.
    pub token: Secret,
    /// What it lets do. Default: everything.
    pub role: Role,
}

/// What HTTPS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub private_key: PathBuf,
}

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Token,
}

impl Value for Source {
    const EXPECTED: &'static str = "token (the only source)";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "token" {
            Ok(Source::Token)
        } else {
            Err(String::new())
        }
    }
}

impl Value for Role {
    const EXPECTED: &'static str = "one of viewer, operator, admin";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }
}

pub(super) fn read(section: &mut Section<'_>, upstream_floating: Option<IpAddr>) -> Option<Api> {
    let (listen_address, listen_port) = section.section_or_defaults("listen", |section| {
        let address = section.optional::<IpAddr>("address");
        (address.or(upstream_floating), section.or("port", Port(7370)).0)
    });
    let (enabled, session_secret) = section.section_or_defaults("authentication", |section| {
        section.or("source", Source::Token);
        (
            section.or("enabled", false),
            section.optional::<Secret>("secret_key"),
        )
    });
    let tokens = section.sections("token", |section| {
        let description = section.or("description", String::new());
        let token = section.required::<Secret>("token");
        // PVC 1.0.3 knows no roles: each of its tokens may do everything.
        let role = section.or("role", Role::Admin);
        Some(ApiToken {
            description,
            token: token?,
            role,
        })
    });
    let authentication = match (enabled, tokens) {
        (true, Some(tokens)) => {
            check_tokens(section, &tokens);
            Authentication::Tokens(tokens.into_iter().flatten().collect())
        }
        (true, None) => {
            if !section.has("token") {
                section.report(
                    "token",
                    Problem::NeededBecause {
                        because: "api.authentication.enabled is yes",
                    },
                );
            }
            Authentication::Tokens(Vec::new())
        }
        (false, Some(_) | None) => {
            section.report("authentication", Problem::NoAuthentication);
            Authentication::Open
        }
    };
    let tls = section.section_or_defaults("ssl", read_tls);
    let max_age = section.or("max_age", Seconds(Duration::from_secs(5))).0;
    Some(Api {
        listen_address: listen_address?,
        listen_port,
        authentication,
        session_secret,
        tls,
        max_age: max_age.max(Duration::from_secs(2)),
    })
}

fn check_tokens(section: &Section<'_>, tokens: &[Option<ApiToken>]) {
    if tokens.is_empty() {
        section.report("token", Problem::EmptyList);
    }
    let token_of = |entry: &Option<ApiToken>| entry.as_ref().map(|entry| entry.token.clone());
    for (index, entry) in tokens.iter().enumerate().filter(|(_, entry)| entry.is_some()) {
        // Revoking one of two equal keys would revoke nothing.
        if let Some(earlier) = tokens
            .iter()
            .take(index)
            .position(|other| token_of(other) == token_of(entry))
        {
            section.report(&format!("token[{index}]"), Problem::SameToken(earlier));
        }
    }
}

fn read_tls(section: &mut Section<'_>) -> Option<Tls> {
    let enabled = section.or("enabled", false);
    let certificate = section.optional::<PathBuf>("certificate");
    let private_key = section.optional::<PathBuf>("private_key");
    if !enabled {
        return None;
    }
    for key in ["certificate", "private_key"] {
        if !section.has(key) {
            section.report(
                key,
                Problem::NeededBecause {
                    because: "api.ssl.enabled is yes",
                },
            );
        }
    }
    Some(Tls {
        certificate: certificate?,
        private_key: private_key?,
    })
}
