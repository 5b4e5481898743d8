//! Certificates of a cluster, made anew for each, and the files that name them.
//!
//! Called once, when a cluster comes up. Its keys are worth nothing beyond the cluster, which listens on loopback only.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pinion_lab::LabError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::ClusterError;

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new(name: &str) -> Result<Self, ClusterError> {
        let failed = |source| ClusterError::Certificate { subject: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = CertificateParams::new(Vec::new()).map_err(failed)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    /// Its certificate, as PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For a user of the API, who may be in a group.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Identity, ClusterError> {
        self.sign(user, group, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a server by its names and addresses.
    pub(crate) fn server(
        &self,
        name: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity, ClusterError> {
        let failed = |source| ClusterError::Certificate { subject: name.to_owned(), source };
        let mut known = Vec::new();
        for name in names {
            known.push(SanType::DnsName((*name).try_into().map_err(failed)?));
        }
        known.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.sign(name, None, &known, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        name: &str,
        group: Option<&str>,
        known: &[SanType],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, ClusterError> {
        let failed = |source| ClusterError::Certificate { subject: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = CertificateParams::new(Vec::new()).map_err(failed)?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.subject_alt_names = known.to_vec();
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// What a client of the API needs: where it is, whom to trust, who one is. JSON, which is YAML too.
    pub(crate) fn kubeconfig(&self, server: &str, identity: &Identity) -> String {
        let data = |text: &str| STANDARD.encode(text);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": server, "certificate-authority-data": data(&self.certificate),
            }}],
            "users": [{"name": "lab", "user": {
                "client-certificate-data": data(&identity.certificate), "client-key-data": data(&identity.key),
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        })
        .to_string()
    }
}

/// The key that tokens of service accounts are signed with: private and public, as PEM.
pub(crate) fn signing_key() -> Result<[String; 2], ClusterError> {
    let failed = |source| ClusterError::Certificate { subject: "service accounts".to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    Ok([key.serialize_pem(), key.public_key_pem()])
}

/// Writes a file of a cluster.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, ClusterError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(LabError::file("write", &path))?;
    Ok(path)
}

impl Identity {
    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<[String; 2], ClusterError> {
        let certificate = write(folder, &format!("{name}.crt"), &self.certificate)?;
        let key = write(folder, &format!("{name}.key"), &self.key)?;
        Ok([certificate.display().to_string(), key.display().to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_user_and_its_group() {
        let authority = Authority::new("lab").unwrap();
        let identity = authority.client("system:node:one", Some("system:nodes")).unwrap();
        let config = authority.kubeconfig("https://127.0.0.1:1", &identity);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let data = config["users"][0]["user"]["client-certificate-data"].as_str().unwrap();
        let pem = String::from_utf8(STANDARD.decode(data).unwrap()).unwrap();
        let der: String = pem.lines().filter(|l| !l.starts_with("---")).collect();
        let der = STANDARD.decode(der).unwrap();
        let has = |text: &str| der.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has("system:node:one") && has("system:nodes") && !has("system:masters"));
    }
}
