//! The life of one resource's service: from its socket to the kubelet's knowing it, again and again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pinion_device_plugin::{Catalogue, socket_name};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::api::device_plugin_server::DevicePluginServer;
use crate::folder::{Folder, Identity};
use crate::plugin::Plugin;
use crate::registration::register;
use crate::{Event, Tell};

/// Between two attempts at the same.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes its socket with it.
#[derive(Debug)]
struct Socket(PathBuf);

impl Socket {
    /// In place of whatever a plugin that was killed has left.
    fn bind(path: PathBuf) -> io::Result<(Self, UnixListener)> {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok((Self(path), listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Serves a resource for as long as it is polled.
pub(crate) async fn live(
    resource: String,
    mut folder: Folder,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    (tell, by_cdi): (Tell, bool),
) {
    let path = folder.join(&socket_name(&resource));
    loop {
        match Socket::bind(path.clone()) {
            Ok((socket, listener)) => {
                let (_stop, stop) = watch::channel(());
                let plugin = Plugin {
                    resource: resource.clone(),
                    catalogue: catalogue.clone(),
                    stop,
                    tell: Arc::clone(&tell),
                    by_cdi,
                };
                let server = Server::builder().add_service(DevicePluginServer::new(plugin));
                tokio::select! {
                    // A listener that fails is bound anew.
                    _ = server.serve_with_incoming(UnixListenerStream::new(listener)) => {}
                    () = known(&resource, &socket.0, &mut folder, &tell) => {
                        tell(&Event::Forgotten { resource: resource.clone() });
                        continue;
                    }
                }
            }
            Err(error) => tell(&Event::NoSocket { path: path.clone(), error }),
        }
        time::sleep(AGAIN).await;
    }
}

/// Makes the resource known, and returns when the kubelet does not know it any more.
///
/// 1. Look which kubelet and which socket there are: what changes from here on is seen.
/// 2. Register, until it is done: the server is there already, since the kubelet connects before it answers.
/// 3. Wait until either is another: the kubelet that starts empties its folder, and has forgotten all.
async fn known(resource: &str, socket: &Path, folder: &mut Folder, tell: &Tell) {
    let kubelet = folder.kubelet();
    let own = Identity::of(socket);
    let mut registered: Option<Identity> = None;
    while Identity::of(socket) == own {
        let now = Identity::of(&kubelet);
        if now.is_some() && now != registered {
            let name = socket.file_name().unwrap_or_default().to_string_lossy();
            match register(&kubelet, resource, &name).await {
                Ok(()) => {
                    registered = now;
                    tell(&Event::Registered { resource: resource.to_owned() });
                }
                Err(error) => {
                    tell(&Event::NotRegistered { resource: resource.to_owned(), error });
                    time::sleep(AGAIN).await;
                }
            }
            continue;
        }
        folder.changed().await;
    }
}
