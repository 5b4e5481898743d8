//! Making authorities and serving certificates.
//!
//! Called by `rotation` only.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::stored::{Authority, DamageError, Serving, Signed};
use super::{Lives, Wish};

/// So that a client whose clock is behind takes a new certificate.
const BEHIND: SignedDuration = SignedDuration::from_mins(5);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// From the library: no random numbers, or a name that it refuses.
    #[error("Cannot make a certificate for the webhook")]
    Make(#[from] rcgen::Error),
    /// A time that no certificate can have.
    #[error("A certificate made at {now} cannot end after {life:#}: set this machine's clock")]
    Time {
        /// The clock's.
        now: Timestamp,
        /// Wanted.
        life: SignedDuration,
    },
    /// What was made cannot be read.
    #[error("A certificate just made for the webhook cannot be read")]
    Made(#[from] DamageError),
    /// No authority holds.
    #[error("No authority can sign the webhook's certificate at {now}: set this machine's clock")]
    NoSigner {
        /// The clock's.
        now: Timestamp,
    },
}

/// A new authority with its key.
pub(super) fn authority(now: Timestamp, lives: Lives) -> Result<Authority, IssueError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    // Names that differ spare clients to try one authority's key on what another signed.
    parameters.distinguished_name = named(&format!("pinion-webhook-ca {}", now.as_second()));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let until = end(now, lives.authority)?;
    hold(&mut parameters, (now, lives.authority), until)?;
    let certificate = parameters.self_signed(&key)?;
    Ok(Authority::new(Signed::read(certificate.der().clone())?, Some(key.serialize_pem())))
}

/// A new serving certificate, which does not outlive its authority.
pub(super) fn serving(now: Timestamp, wish: &Wish, signer: &Authority) -> Result<Serving, IssueError> {
    let Some(signing_key) = signer.key() else { return Err(IssueError::NoSigner { now }) };
    let issuer = Issuer::from_ca_cert_der(signer.certificate(), KeyPair::from_pem(signing_key)?)?;
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(wish.names().iter().cloned().collect::<Vec<_>>())?;
    parameters.distinguished_name = named("pinion-webhook");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let life = wish.lives().serving;
    let until = end(now, life)?.min(signer.until());
    hold(&mut parameters, (now, life), until)?;
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok(Serving::new(Signed::read(certificate.der().clone())?, key.serialize_pem())?)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn end(now: Timestamp, life: SignedDuration) -> Result<Timestamp, IssueError> {
    now.checked_add(life).map_err(|_| IssueError::Time { now, life })
}

fn hold(
    parameters: &mut CertificateParams,
    (now, life): (Timestamp, SignedDuration),
    until: Timestamp,
) -> Result<(), IssueError> {
    let refused = |_| IssueError::Time { now, life };
    let behind = SignedDuration::from_secs(life.as_secs() / 24).min(BEHIND);
    let from = now.checked_sub(behind).map_err(|_| IssueError::Time { now, life })?;
    parameters.not_before = OffsetDateTime::from_unix_timestamp(from.as_second()).map_err(refused)?;
    parameters.not_after = OffsetDateTime::from_unix_timestamp(until.as_second()).map_err(refused)?;
    Ok(())
}
