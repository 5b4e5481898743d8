//! What the pod's interface was like before a bridge took its place, in a file that outlives this agent.
//!
//! Written before anything is changed, and never again: an agent that was killed half-way finds in it what the
//! interface itself no longer says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use pinion_api::MacAddress;
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::guest::{Addressing, GuestRoute};
use crate::links::{Address, Link};

/// A record has a few hundred bytes, and some for each route.
const MAX_BYTES: u64 = 1 << 20;
const API_VERSION: &str = "pinion.dev/v1alpha1";
const KIND: &str = "PodInterfaceRecord";

/// A pod's interface as its network (CNI) made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    api_version: String,
    kind: String,
    device: String,
    mac: String,
    mtu: u32,
    address: Option<RecordedAddress>,
    routes: Vec<GuestRoute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordedAddress {
    address: Ipv4Addr,
    prefix: u8,
}

impl Record {
    pub(crate) fn new(link: &Link, address: Option<Address>, routes: Vec<GuestRoute>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            device: link.name.clone(),
            mac: link.mac.to_string(),
            mtu: link.mtu,
            address: address.map(|Address { address, prefix }| RecordedAddress { address, prefix }),
            routes,
        }
    }

    /// None where there is no such file.
    pub(crate) fn read(path: &Path, device: &str) -> Result<Option<Self>, NetworkError> {
        let failed = |source| NetworkError::Record { path: path.to_owned(), source };
        let wrong = |why: String| NetworkError::RecordContent { path: path.to_owned(), why };
        let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        let record: Self = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if (record.api_version.as_str(), record.kind.as_str()) != (API_VERSION, KIND) {
            return Err(wrong(format!("it is no {KIND} of {API_VERSION}")));
        }
        if record.device != device {
            return Err(wrong(format!("it is of {:?}", record.device)));
        }
        record.mac().ok_or_else(|| wrong(format!("mac: {:?} is no MAC address", record.mac)))?;
        if record.address.is_some_and(|a| a.prefix > 32) || record.routes.iter().any(|r| r.prefix > 32) {
            return Err(wrong("a prefix is longer than an address".to_owned()));
        }
        Ok(Some(record))
    }

    /// Whole or not at all, also after a loss of power.
    pub(crate) fn write(&self, path: &Path) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::Record { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&beside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(failed)
    }

    pub(crate) fn mac(&self) -> Option<MacAddress> {
        self.mac.parse().ok()
    }

    pub(crate) const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// What a guest in the pod's place is told; none where the pod had no address.
    pub(crate) fn addressing(&self, server: Ipv4Addr) -> Option<Addressing> {
        let RecordedAddress { address, prefix } = self.address?;
        let host_bits = 32_u32.saturating_sub(u32::from(prefix));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let subnet = address.to_bits() & mask;
        // The guest's own address says it already.
        let implied = |route: &GuestRoute| {
            route.gateway.is_none() && route.prefix == prefix && route.destination.to_bits() == subnet
        };
        let is_default = |route: &GuestRoute| route.prefix == 0;
        let told: Vec<GuestRoute> = self.routes.iter().filter(|route| !implied(route)).copied().collect();
        let router = told.iter().find(|route| is_default(route)).and_then(|route| route.gateway);
        let routes = if told.iter().all(is_default) { Vec::new() } else { told };
        Some(Addressing { address, prefix, server, router, routes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        let (name, mac) = ("eth0".to_owned(), MacAddress([2, 0, 0, 0, 0, 1]));
        Link { index: 2, name, mac, mtu: 1450, up: true, master: None, kind: None }
    }

    fn route(text: &str, gateway: Option<&str>) -> GuestRoute {
        let (destination, prefix) = text.split_once('/').unwrap();
        let gateway = gateway.map(|text| text.parse().unwrap());
        GuestRoute { destination: destination.parse().unwrap(), prefix: prefix.parse().unwrap(), gateway }
    }

    fn addressing(address: &str, prefix: u8, routes: &[GuestRoute]) -> Addressing {
        let address = Address { address: address.parse().unwrap(), prefix };
        Record::new(&link(), Some(address), routes.to_vec())
            .addressing(Ipv4Addr::new(169, 254, 75, 10))
            .unwrap()
    }

    #[test]
    fn a_default_route_alone_is_the_router() {
        let routes = [route("0.0.0.0/0", Some("10.244.1.1")), route("10.244.1.0/24", None)];
        let told = addressing("10.244.1.7", 24, &routes);
        assert_eq!(told.router, Some(Ipv4Addr::new(10, 244, 1, 1)));
        assert_eq!(told.routes, []);
    }

    #[test]
    fn other_routes_are_told_together_with_the_default_route() {
        let routes = [route("0.0.0.0/0", Some("169.254.1.1")), route("169.254.1.1/32", None)];
        let told = addressing("10.244.1.7", 32, &routes);
        assert_eq!(told.router, Some(Ipv4Addr::new(169, 254, 1, 1)));
        assert_eq!(told.routes, routes);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_wrong_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eth0.json");
        assert_eq!(Record::read(&path, "eth0").unwrap(), None);
        let address = Address { address: Ipv4Addr::new(10, 1, 2, 3), prefix: 24 };
        let record = Record::new(&link(), Some(address), vec![route("0.0.0.0/0", Some("10.1.2.1"))]);
        record.write(&path).unwrap();
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path, "eth0").unwrap(), Some(record.clone()));
        assert!(matches!(Record::read(&path, "net1"), Err(NetworkError::RecordContent { .. })));
        let whole = fs::read_to_string(&path).unwrap();
        for (from, to) in [("02:00", "0g:00"), ("24", "33"), ("v1alpha1", "v9"), ("\"mtu\"", "\"mtv\"")] {
            fs::write(&path, whole.replace(from, to)).unwrap();
            assert!(matches!(Record::read(&path, "eth0"), Err(NetworkError::RecordContent { .. })), "{from}");
        }
        fs::write(&path, &whole[..40]).unwrap();
        assert_eq!(Record::read(&path, "eth0").unwrap_err().reason(), "RecordInvalid");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
