//! Whom an API's certificate must be from: the authorities that this system trusts, a company's own among them.

use ureq::tls::{Certificate, RootCerts};

use crate::error::{CliError, Result};

/// The authorities that the system trusts: those in `SSL_CERT_FILE` or `SSL_CERT_DIR` if they are set, else the
/// system's (`/etc/ssl/certs`).
pub(super) fn of_the_system() -> Result<RootCerts> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(": {error}"));
        return Err(CliError::failure(format!(
            "This machine trusts no certificate authority, so that no API's certificate can be checked{why}. Install \
             'ca-certificates', or name the authority's certificate in SSL_CERT_FILE"
        )));
    }
    Ok(RootCerts::new_with_certs(
        &found
            .certs
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect::<Vec<_>>(),
    ))
}
