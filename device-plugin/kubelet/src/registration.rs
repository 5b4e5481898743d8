//! Making a resource known to the kubelet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time;
use tonic::transport::{Channel, Endpoint, Error};

use crate::api::registration_client::RegistrationClient;
use crate::api::{RegisterRequest, VERSION};
use crate::plugin::options;

/// Longest that the kubelet may take to connect and answer; it connects back meanwhile, for which it has ten seconds.
const WITHIN: Duration = Duration::from_secs(15);

/// Why the kubelet does not know of a resource.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is no kubelet, or it does not answer.
    #[error("Cannot reach the kubelet at {path}: is it running?", path = path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// It refuses.
    #[error("The kubelet refuses {resource}: {message}")]
    Refused {
        /// The resource.
        resource: String,
        /// What it says.
        message: String,
    },
    /// It did not answer in time.
    #[error("The kubelet has not answered about {resource} for {} s", WITHIN.as_secs())]
    Silent {
        /// The resource.
        resource: String,
    },
}

impl RegisterError {
    /// A stable name: a label of metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Refused { .. } => "Refused",
            Self::Silent { .. } => "Silent",
        }
    }
}

/// To one of the kubelet's sockets.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, Error> {
    Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await
}

/// Tells the kubelet on which socket of its folder a resource is.
///
/// # Errors
/// [`RegisterError`]
pub(crate) async fn register(kubelet: &Path, resource: &str, socket: &str) -> Result<(), RegisterError> {
    let unreachable = |source| RegisterError::Unreachable { path: kubelet.to_owned(), source };
    let told = async {
        let channel = connect(kubelet).await.map_err(unreachable)?;
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: socket.to_owned(),
            resource_name: resource.to_owned(),
            options: Some(options()),
        };
        let refused = |status: tonic::Status| RegisterError::Refused {
            resource: resource.to_owned(),
            message: status.message().to_owned(),
        };
        RegistrationClient::new(channel).register(request).await.map_err(refused)
    };
    match time::timeout(WITHIN, told).await {
        Ok(told) => told.map(drop),
        Err(_) => Err(RegisterError::Silent { resource: resource.to_owned() }),
    }
}
