//! What is kept in the Secret, read and written.
//!
//! A [`Stored`] is whole: every certificate can be read, every key fits, and one of its authorities signed what is served.
//! Whether it still holds is for `rotation` to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The serving certificate.
pub(super) const SERVING: &str = "tls.crt";
/// Its key.
pub(super) const SERVING_KEY: &str = "tls.key";
/// Certificates of all authorities that clients trust, oldest first: the bundle.
pub(super) const AUTHORITIES: &str = "ca.crt";
/// Keys of the authorities that sign or will sign.
pub(super) const AUTHORITY_KEYS: &str = "ca.key";

/// Why what is kept cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageError {
    /// A field is not there, or has no text of the kind in it.
    #[error("{field} has no {what}")]
    Missing {
        /// The Secret's key.
        field: &'static str,
        /// `certificate` or `key`.
        what: &'static str,
    },
    /// It is there, and it cannot be read.
    #[error("{field} cannot be read: {hint}")]
    Unreadable {
        /// The Secret's key.
        field: &'static str,
        /// What is wrong.
        hint: String,
    },
    /// The serving certificate is another key's.
    #[error("tls.key is not the key of tls.crt")]
    OtherKey,
    /// The serving certificate is none of these authorities'.
    #[error("tls.crt is signed by none of the authorities in ca.crt")]
    OtherAuthority,
}

impl DamageError {
    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "Missing",
            Self::Unreadable { .. } => "Unreadable",
            Self::OtherKey => "OtherKey",
            Self::OtherAuthority => "OtherAuthority",
        }
    }
}

/// A certificate, and when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    der: CertificateDer<'static>,
    from: Timestamp,
    until: Timestamp,
}

impl Signed {
    pub(super) fn read(der: CertificateDer<'static>) -> Result<Self, DamageError> {
        let (from, until) = {
            let read = parsed(&der, "a certificate")?;
            let validity = read.validity();
            let time = |t: &x509_parser::time::ASN1Time| {
                Timestamp::from_second(t.timestamp()).map_err(|e| unreadable("a certificate", &e))
            };
            (time(&validity.not_before)?, time(&validity.not_after)?)
        };
        if until <= from {
            return Err(unreadable("a certificate", &"it ends before it begins"));
        }
        Ok(Self { der, from, until })
    }

    /// When that part of its life is over.
    pub(super) fn at(&self, part: (i64, i64)) -> Timestamp {
        let life = self.until.as_second().saturating_sub(self.from.as_second());
        // Years 1 to 9999 have seconds enough below 2^40.
        let second = self.from.as_second().saturating_add(life.saturating_mul(part.0) / part.1);
        Timestamp::from_second(second).unwrap_or(self.until)
    }
}

fn unreadable(field: &'static str, hint: &dyn fmt::Display) -> DamageError {
    DamageError::Unreadable { field, hint: hint.to_string() }
}

fn parsed<'a>(der: &'a CertificateDer<'_>, field: &'static str) -> Result<X509Certificate<'a>, DamageError> {
    X509Certificate::from_der(der).map(|(_, read)| read).map_err(|e| unreadable(field, &e))
}

/// An authority of our own.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    signed: Signed,
    key: Option<String>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Authority");
        shown.field("from", &self.from()).field("until", &self.until());
        shown.field("signs", &self.key.is_some()).finish_non_exhaustive()
    }
}

impl Authority {
    pub(super) const fn new(signed: Signed, key: Option<String>) -> Self {
        Self { signed, key }
    }

    /// Since when it holds.
    #[must_use]
    pub const fn from(&self) -> Timestamp {
        self.signed.from
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.signed.until
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.signed.der
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(super) fn forget_key(&mut self) {
        self.key = None;
    }

    pub(super) const fn signed(&self) -> &Signed {
        &self.signed
    }

    fn signed_this(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Ok(own), Ok(other)) = (parsed(&self.signed.der, AUTHORITIES), parsed(certificate, SERVING))
        else {
            return false;
        };
        other.issuer() == own.subject() && other.verify_signature(Some(own.public_key())).is_ok()
    }
}

/// What is served.
#[derive(Clone)]
pub struct Serving {
    signed: Signed,
    key: String,
    names: BTreeSet<String>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Serving");
        shown.field("from", &self.from()).field("until", &self.until());
        shown.field("names", &self.names).finish_non_exhaustive()
    }
}

impl PartialEq for Serving {
    fn eq(&self, other: &Self) -> bool {
        self.signed == other.signed
    }
}

impl Eq for Serving {}

impl Serving {
    pub(super) fn new(signed: Signed, key: String) -> Result<Self, DamageError> {
        let names = names(&parsed(&signed.der, SERVING)?)?;
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| unreadable(SERVING_KEY, &e))?;
        let certified = CertifiedKey::from_der(vec![signed.der.clone()], der, &ring::default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => DamageError::OtherKey,
            other => unreadable(SERVING_KEY, &other),
        })?;
        Ok(Self { signed, key, names, certified: Arc::new(certified) })
    }

    /// Since when it holds.
    #[must_use]
    pub const fn from(&self) -> Timestamp {
        self.signed.from
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.signed.until
    }

    /// The names and addresses that it is for.
    #[must_use]
    pub const fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    pub(super) const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// For a TLS server.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

fn names(certificate: &X509Certificate<'_>) -> Result<BTreeSet<String>, DamageError> {
    let extension = certificate.subject_alternative_name().map_err(|e| unreadable(SERVING, &e))?;
    let listed = extension.iter().flat_map(|e| &e.value.general_names);
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let sixteen = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or(sixteen).ok().map(|a| a.to_string())
        }
        _ => None,
    };
    Ok(listed.filter_map(name).collect())
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    authorities: Vec<Authority>,
    serving: Serving,
}

impl Stored {
    pub(super) fn new(mut authorities: Vec<Authority>, serving: Serving) -> Self {
        authorities.sort_by_key(Authority::from);
        Self { authorities, serving }
    }

    /// Reads it from the data of a Secret. A key that fits none of the authorities is passed over.
    ///
    /// # Errors
    /// [`DamageError`], the first.
    pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, DamageError> {
        let mut keys = Vec::new();
        for text in pem_keys(data)? {
            let pair = KeyPair::from_pem(&text).map_err(|e| unreadable(AUTHORITY_KEYS, &e))?;
            keys.push((pair.der_bytes().to_vec(), text));
        }
        let mut authorities = Vec::new();
        for der in certificates(data, AUTHORITIES)? {
            let signed = Signed::read(der)?;
            let public = parsed(&signed.der, AUTHORITIES)?.public_key().subject_public_key.data.to_vec();
            let key = keys.iter().find(|(of, _)| *of == public).map(|(_, text)| text.clone());
            authorities.push(Authority::new(signed, key));
        }
        let served = certificates(data, SERVING)?;
        let Some(der) = served.into_iter().next() else {
            return Err(DamageError::Missing { field: SERVING, what: "certificate" });
        };
        let serving = Serving::new(Signed::read(der)?, text(data, SERVING_KEY, "key")?)?;
        let stored = Self::new(authorities, serving);
        if !stored.is_signed_by_one_of(&stored.authorities) {
            return Err(DamageError::OtherAuthority);
        }
        Ok(stored)
    }

    /// The data of a Secret.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, Vec<u8>> {
        let keys: String = self.authorities.iter().filter_map(Authority::key).collect();
        [
            (SERVING, pem(&self.serving.signed.der)),
            (SERVING_KEY, self.serving.key.clone()),
            (AUTHORITIES, self.bundle()),
            (AUTHORITY_KEYS, keys),
        ]
        .map(|(field, text)| (field.to_owned(), text.into_bytes()))
        .into()
    }

    /// What clients are to trust, as PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|a| pem(&a.signed.der)).collect()
    }

    /// Oldest first.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// What is served.
    #[must_use]
    pub const fn serving(&self) -> &Serving {
        &self.serving
    }

    pub(super) fn is_signed_by_one_of(&self, authorities: &[Authority]) -> bool {
        authorities.iter().any(|a| a.signed_this(&self.serving.signed.der))
    }
}

fn text(
    data: &BTreeMap<String, Vec<u8>>,
    field: &'static str,
    what: &'static str,
) -> Result<String, DamageError> {
    let bytes = data.get(field).ok_or(DamageError::Missing { field, what })?;
    String::from_utf8(bytes.clone()).map_err(|e| unreadable(field, &e))
}

fn certificates(
    data: &BTreeMap<String, Vec<u8>>,
    field: &'static str,
) -> Result<Vec<CertificateDer<'static>>, DamageError> {
    let text = text(data, field, "certificate")?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.map_err(|e| unreadable(field, &e))?;
    if read.is_empty() {
        return Err(DamageError::Missing { field, what: "certificate" });
    }
    Ok(read)
}

/// The keys of authorities, each as a text of its own.
fn pem_keys(data: &BTreeMap<String, Vec<u8>>) -> Result<Vec<String>, DamageError> {
    let all = text(data, AUTHORITY_KEYS, "key")?;
    let read: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(all.as_bytes()).collect();
    let read = read.map_err(|e| unreadable(AUTHORITY_KEYS, &e))?;
    Ok(read.iter().map(|key| armoured("PRIVATE KEY", key.secret_der())).collect())
}

fn pem(der: &CertificateDer<'_>) -> String {
    armoured("CERTIFICATE", der)
}

fn armoured(kind: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {kind}-----\n");
    let mut rest = STANDARD.encode(der);
    while !rest.is_empty() {
        let next = rest.split_off(rest.len().min(64));
        text.push_str(&rest);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {kind}-----\n"));
    text
}
