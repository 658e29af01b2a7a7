//! HTTPS.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Cluster;
use pvcapid::server::{ServerError, TlsFiles, tls_config};
use ureq::Agent;
use ureq::tls::TlsConfig;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A certificate made for this test alone, with its key.
fn files() -> TlsFiles {
    TlsFiles {
        certificate: file("tls-certificate.pem"),
        private_key: file("tls-key.pem"),
    }
}

#[test]
fn with_a_certificate_the_api_speaks_https_and_nothing_else() {
    let cluster = Cluster::with_tls(tls_config(&files()).unwrap());
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .new_agent();
    let url = cluster.url.replace("http://", "https://");
    let mut response = agent.get(format!("{url}/api/v1/")).call().unwrap();
    assert!(response.body_mut().read_to_string().unwrap().contains("PVC API"));
    assert!(
        agent.get(format!("{}/api/v1/", cluster.url)).call().is_err(),
        "a token must not go over plain HTTP"
    );
}

#[test]
fn a_certificate_that_can_not_be_used_is_named() {
    let check = |certificate: &str, key: &str| {
        tls_config(&TlsFiles {
            certificate: file(certificate),
            private_key: file(key),
        })
        .unwrap_err()
    };
    let error = check("none.pem", "tls-key.pem");
    assert!(
        matches!(&error, ServerError::Pem { path, .. } if path.ends_with("none.pem")),
        "{error}"
    );
    let error = check("tls-certificate.pem", "tls-certificate.pem");
    assert!(matches!(&error, ServerError::Pem { .. }), "{error}");
}
