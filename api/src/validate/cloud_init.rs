//! Rules on data for cloud-init, and how it is decoded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{CloudInit, InstanceSpec, Volume};

use super::{exactly_one, volume};

/// Most data of one kind, bytes.
const MOST: usize = 1 << 20;

pub(super) fn check(data: &CloudInit, path: &FieldPath, findings: &mut Findings) {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let user = [
        ("userData", !empty(&data.user_data)),
        ("userDataBase64", !empty(&data.user_data_base64)),
        ("secretRef", data.secret_ref.is_some()),
    ];
    let network = [
        ("networkData", !empty(&data.network_data)),
        ("networkDataBase64", !empty(&data.network_data_base64)),
        ("networkDataSecretRef", data.network_data_secret_ref.is_some()),
    ];
    let any = |fields: &[(&str, bool)]| fields.iter().any(|(_, given)| *given);
    if !any(&user) && !any(&network) {
        let message = "required: give userData or networkData";
        findings.add(path, ProblemCode::Required, message);
    }
    for fields in [user, network] {
        if any(&fields) {
            exactly_one(&fields, "", path, findings);
        }
    }
    for (field, text) in [("userData", &data.user_data), ("networkData", &data.network_data)] {
        check_length(text.as_deref().unwrap_or_default().len(), &path.field(field), findings);
    }
    for (field, text) in
        [("userDataBase64", &data.user_data_base64), ("networkDataBase64", &data.network_data_base64)]
    {
        let Some(text) = text else { continue };
        let path = path.field(field);
        match decode(text) {
            Some(bytes) => check_length(bytes.len(), &path, findings),
            None => findings.add(&path, ProblemCode::Invalid, "not base64"),
        }
    }
    for (field, secret) in
        [("secretRef", &data.secret_ref), ("networkDataSecretRef", &data.network_data_secret_ref)]
    {
        if let Some(secret) = secret {
            volume::check_object(
                secret.name.as_deref(),
                "secret",
                &path.field(field).field("name"),
                findings,
            );
        }
    }
}

fn check_length(bytes: usize, path: &FieldPath, findings: &mut Findings) {
    if bytes > MOST {
        let message = format!("{bytes} bytes are more than {MOST}");
        findings.add(path, ProblemCode::Invalid, message);
    }
}

/// Base64 as people paste it: line breaks and blanks do not count.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

impl CloudInit {
    /// The user data, decoded; empty where there is none.
    #[must_use]
    pub fn user_data_bytes(&self) -> Vec<u8> {
        bytes(self.user_data.as_deref(), self.user_data_base64.as_deref())
    }

    /// The network data, decoded; empty where there is none.
    #[must_use]
    pub fn network_data_bytes(&self) -> Vec<u8> {
        bytes(self.network_data.as_deref(), self.network_data_base64.as_deref())
    }
}

fn bytes(plain: Option<&str>, base64: Option<&str>) -> Vec<u8> {
    match plain.filter(|text| !text.is_empty()) {
        Some(text) => text.as_bytes().to_vec(),
        None => base64.and_then(decode).unwrap_or_default(),
    }
}

/// Its programs read one volume, of whichever kind.
pub(super) fn check_is_one(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let indexes: Vec<usize> = (0..)
        .zip(&spec.volumes)
        .filter(|(_, volume)| volume.cloud_init().is_some())
        .map(|(i, _)| i)
        .collect();
    let [first, second, ..] = indexes.as_slice() else { return };
    let is_no_cloud = |volume: &Volume| volume.cloud_init_no_cloud.is_some();
    let field = match spec.volumes.get(*second) {
        Some(volume) if is_no_cloud(volume) => "cloudInitNoCloud",
        _ => "cloudInitConfigDrive",
    };
    let message = format!("cloud-init reads one volume, and {} is one: remove it", path.index(*first));
    findings.add(&path.index(*second).field(field), ProblemCode::Conflict, message);
}
