//! TLS as the server speaks it: version 1.3, HTTP/1.1, and the certificate of the moment.
//!
//! Asked by rustls at each handshake, on whatever thread serves. What is shown is taken from the watched value each time, so
//! that a new certificate is shown from the next handshake on, and connections that are there go on with theirs.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::sync::watch;

use crate::certificates::Stored;

/// What is kept now; `None` before anything is.
pub type Current = watch::Receiver<Option<Arc<Stored>>>;

/// Shows the certificate of the moment.
#[derive(Debug)]
struct Shown(Current);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|stored| stored.serving().certified())
    }
}

/// A server's side. Nothing is remembered of a client: each handshake shows the certificate.
///
/// # Errors
/// What rustls says of its own ciphers, so never.
pub(crate) fn config(current: Current) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown(current)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
pub(crate) mod trust {
    //! A client that trusts a bundle at a time, as an API server does.

    use std::fmt::Debug;
    use std::time::Duration;

    use jiff::Timestamp;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::time_provider::TimeProvider;
    use rustls::{ClientConfig, RootCertStore};

    use super::*;

    #[derive(Debug)]
    struct At(Timestamp);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            let second = u64::try_from(self.0.as_second()).ok()?;
            Some(UnixTime::since_unix_epoch(Duration::from_secs(second)))
        }
    }

    /// rustls takes authorities that have ended; Go does not, and so they are left out here.
    pub(crate) fn client(bundle: &str, now: Timestamp) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let der = der.unwrap();
            let (_, read) = x509_parser::parse_x509_certificate(&der).unwrap();
            let validity = read.validity();
            if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now.as_second()) {
                roots.add(der).unwrap();
            }
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(At(now)));
        let builder = builder.with_protocol_versions(&[&TLS13]).unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }
}
