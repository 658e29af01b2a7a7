//! The certificate of HTTPS, and its change while the daemon runs.
//!
//! Certificates of today last for weeks and are renewed by programs. The files are looked at every few seconds and on
//! SIGHUP; new connections get what is in them. Files that can not be used change nothing: the old certificate stays,
//! and a fault tells why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use pvc_common::clock::{Clock, HostClock};
use pvc_common::faults::{self, Fault};
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::signal::unix::Signal;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What a certificate that can not be renewed takes from the cluster's health, in percent: it will end one day.
const FAULT_DELTA: u32 = 10;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate and what it was signed with.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub private_key: PathBuf,
}

/// Why a certificate can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file can not be read.
    #[error("can not read {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not make a TLS server.
    #[error("certificate and private key do not fit together or are not usable")]
    Unusable(#[source] rustls::Error),
}

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

/// What of a file shows that it was written: a renewal may replace it or write into it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Certificate {
    /// Reads it from its files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Arc<Certificate>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = RwLock::new(Arc::new(read(&files, &provider)?));
        Ok(Arc::new(Certificate {
            files,
            provider,
            current,
        }))
    }

    /// A TLS server that shows it: TLS 1.2 and 1.3, nothing older.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(config)
    }

    /// Reads the files again. Open connections go on as they are.
    ///
    /// # Errors
    /// [`TlsError`]; the certificate is the same as before then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read(&self.files, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.files.certificate, &self.files.private_key].map(|path| stamp(path).ok())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
    })
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let pem_error = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem_error(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key).map_err(pem_error(&files.private_key))?;
    CertifiedKey::from_der(certificates, key, provider).map_err(TlsError::Unusable)
}

/// Reads the certificate again whenever its files have changed, and when `hangup` comes. Never returns.
pub async fn follow<S: Store>(certificate: &Certificate, hangup: &mut Signal, store: &S, node: &NodeName) {
    let mut follower = Follower::new(certificate, store, node);
    loop {
        let asked = match HostClock.timeout(LOOK, hangup.recv()).await {
            Some(_) => Look::Asked,
            None => Look::Usual,
        };
        follower.look(asked).await;
    }
}

/// Why the files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is time to.
    Usual,
    /// An administrator wants it.
    Asked,
}

struct Follower<'a, S> {
    certificate: &'a Certificate,
    store: &'a S,
    node: &'a NodeName,
    /// What the files were like that are in use.
    used: [Option<Stamp>; 2],
    /// Looks in a row that found files which can not be used.
    failures: u32,
}

impl<'a, S: Store> Follower<'a, S> {
    fn new(certificate: &'a Certificate, store: &'a S, node: &'a NodeName) -> Self {
        Follower {
            certificate,
            store,
            node,
            // Whatever was wrong with a certificate before the last start is over: the first look says so.
            used: [None, None],
            failures: 0,
        }
    }

    async fn look(&mut self, look: Look) {
        let stamps = self.certificate.stamps();
        if look == Look::Usual && stamps == self.used && self.failures == 0 {
            return;
        }
        match self.certificate.reload() {
            Ok(()) => {
                tracing::info!("the certificate was read again");
                self.used = stamps;
                self.failures = 0;
                let id = faults::fault_id(&self.fault_words());
                if let Err(error) = faults::clear(self.store, &id).await {
                    tracing::debug!(%error, "a fault can not be cleared");
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let reason = reason(&error);
                if self.failures == 2 || look == Look::Asked {
                    tracing::error!(reason, "the new certificate can not be used; the old one stays");
                }
                // Certificate and key are written one after the other: what does not fit at first gets a second look.
                if self.failures >= 2 {
                    self.raise(&reason).await;
                }
            }
        }
    }

    async fn raise(&self, reason: &str) {
        let message = format!(
            "The API on {} can not read its new certificate and goes on with the old one: {reason}",
            self.node
        );
        let fault = Fault::new(&self.fault_words(), FAULT_DELTA, message);
        if let Err(error) = faults::raise(self.store, &HostClock, &fault).await {
            tracing::debug!(%error, "a fault can not be raised");
        }
    }

    fn fault_words(&self) -> [&str; 2] {
        ["api_certificate", self.node.as_str()]
    }
}

/// An error with what caused it.
fn reason(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::keys;
    use pvc_common::keys::values::Maintenance;
    use pvc_common::store::memory::{MemoryServer, MemoryStore};
    use pvc_common::store::{StoreExt, Txn};

    use super::*;

    fn install(files: &TlsFiles, certificate: &str, key: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        fs::copy(fixtures.join(certificate), &files.certificate).unwrap();
        fs::copy(fixtures.join(key), &files.private_key).unwrap();
    }

    /// A store, and a certificate that is in use with its files.
    async fn prepared() -> (MemoryStore, tempfile::TempDir, Arc<Certificate>, TlsFiles) {
        let store = MemoryServer::new().client();
        let seed = Txn::new()
            .create_path("/config", "")
            .create(&keys::config().maintenance(), &Maintenance::Off)
            .create_path(keys::faults().path(), "");
        store.commit(seed).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: directory.path().join("certificate.pem"),
            private_key: directory.path().join("key.pem"),
        };
        install(&files, "tls-certificate.pem", "tls-key.pem");
        let certificate = Certificate::load(files.clone()).unwrap();
        (store, directory, certificate, files)
    }

    #[tokio::test]
    async fn a_bad_certificate_raises_a_fault_that_a_good_one_clears() {
        let (store, _directory, certificate, files) = prepared().await;
        let node = NodeName::new("hv1").unwrap();
        let mut follower = Follower::new(&certificate, &store, &node);
        let faults = async || store.children_as(&keys::faults()).await.unwrap();
        // The key of the new certificate is still to come.
        install(&files, "tls-certificate-renewed.pem", "tls-key.pem");
        follower.look(Look::Usual).await;
        assert!(faults().await.is_empty());
        follower.look(Look::Usual).await;
        assert_eq!(faults().await, ["API_CERTIFICATE_HV1"]);
        install(&files, "tls-certificate-renewed.pem", "tls-key-renewed.pem");
        follower.look(Look::Usual).await;
        assert!(faults().await.is_empty());
        assert_eq!(follower.failures, 0);
    }

    #[tokio::test]
    async fn a_fault_of_before_the_start_is_cleared() {
        let (store, _directory, certificate, _) = prepared().await;
        let node = NodeName::new("hv1").unwrap();
        Follower::new(&certificate, &store, &node)
            .raise("it is broken")
            .await;
        assert_eq!(store.children_as(&keys::faults()).await.unwrap().len(), 1);
        Follower::new(&certificate, &store, &node).look(Look::Usual).await;
        assert!(store.children_as(&keys::faults()).await.unwrap().is_empty());
    }
}
