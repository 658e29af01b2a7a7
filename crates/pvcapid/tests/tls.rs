//! HTTPS.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::Cluster;
use pvcapid::tls::{Certificate, TlsError, TlsFiles};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
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
    let certificate = Certificate::load(files()).unwrap();
    let cluster = Cluster::with_tls(certificate.server_config().unwrap());
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .new_agent();
    let url = cluster.url().replace("http://", "https://");
    let mut response = agent.get(format!("{url}/api/v1/")).call().unwrap();
    assert!(response.body_mut().read_to_string().unwrap().contains("PVC API"));
    // A session's cookie must never go over plain HTTP.
    let response = agent
        .post(format!("{url}/api/v1/login"))
        .send_form([("token", common::TOKEN)])
        .unwrap();
    let cookie = response.headers().get("Set-Cookie").unwrap().to_str().unwrap();
    assert!(cookie.contains("Secure"), "{cookie}");
    assert!(
        agent.get(format!("{}/api/v1/", cluster.url())).call().is_err(),
        "a token must not go over plain HTTP"
    );
}

#[test]
fn a_certificate_that_can_not_be_used_is_named() {
    let check = |certificate: &str, key: &str| {
        Certificate::load(TlsFiles {
            certificate: file(certificate),
            private_key: file(key),
        })
        .unwrap_err()
    };
    let error = check("none.pem", "tls-key.pem");
    assert!(
        matches!(&error, TlsError::Pem { path, .. } if path.ends_with("none.pem")),
        "{error}"
    );
    let error = check("tls-certificate.pem", "tls-certificate.pem");
    assert!(matches!(&error, TlsError::Pem { .. }), "{error}");
    let error = check("tls-certificate.pem", "tls-key-renewed.pem");
    assert!(matches!(&error, TlsError::Unusable(_)), "{error}");
}

/// Takes every certificate and remembers it.
#[derive(Debug)]
struct Curious(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(certificate.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The certificate that a new connection is shown.
fn shown(cluster: &Cluster) -> CertificateDer<'static> {
    let curious = Arc::new(Curious(Mutex::new(None)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(curious.clone())
        .with_no_client_auth();
    let name = ServerName::try_from("test.invalid").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(cluster.url().strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    let certificate = curious.0.lock().unwrap().take();
    certificate.unwrap()
}

// A certificate that is renewed by a program must not wait for somebody to restart the daemon.
#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_a_bad_one_to_none() {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        certificate: directory.path().join("certificate.pem"),
        private_key: directory.path().join("key.pem"),
    };
    let install = |certificate: &str, key: &str| {
        fs::copy(file(certificate), &files.certificate).unwrap();
        fs::copy(file(key), &files.private_key).unwrap();
    };
    let first = CertificateDer::from_pem_file(file("tls-certificate.pem")).unwrap();
    let renewed = CertificateDer::from_pem_file(file("tls-certificate-renewed.pem")).unwrap();
    install("tls-certificate.pem", "tls-key.pem");
    let certificate = Certificate::load(files.clone()).unwrap();
    let cluster = Cluster::with_tls(certificate.server_config().unwrap());
    assert_eq!(shown(&cluster), first);
    install("tls-certificate-renewed.pem", "tls-key.pem");
    assert!(certificate.reload().is_err());
    assert_eq!(shown(&cluster), first);
    install("tls-certificate-renewed.pem", "tls-key-renewed.pem");
    certificate.reload().unwrap();
    assert_eq!(shown(&cluster), renewed);
    fs::remove_file(&files.private_key).unwrap();
    assert!(certificate.reload().is_err());
    assert_eq!(shown(&cluster), renewed);
}
