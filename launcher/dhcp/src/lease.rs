//! What the guest is given, and the options that say so.
//!
//! Made once by the launcher from what the node agent found in the pod and from the spec. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use pinion_api::{DhcpOptions, MacAddress};

use crate::options::{addresses, domains, mask};
use crate::resolver::Resolver;

/// Options that a site may define. Source: RFC 3942, and KubeVirt's `privateOptions`.
const PRIVATE: std::ops::RangeInclusive<i64> = 224..=254;
/// Longest text or value in one option.
const LONGEST: usize = 255;

/// A route that the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Addr,
    /// Bits of it that count; 0 for the default route.
    pub prefix: u8,
    /// By which router; none where the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// Everything that the one guest of this server is given. Its lease never ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is; nobody else is answered.
    pub mac: MacAddress,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of it that name its network.
    pub prefix: u8,
    /// This server's address on the link.
    pub server: Ipv4Addr,
    /// The default router.
    pub router: Option<Ipv4Addr>,
    /// Routes; where there are any, a client uses no other, so the default route is to be among them.
    pub routes: Vec<Route>,
    /// How it resolves names.
    pub resolver: Resolver,
    /// Its host name.
    pub host_name: Option<String>,
    /// Its interface's MTU.
    pub mtu: Option<u16>,
    /// From the spec.
    pub extra: ExtraOptions,
}

/// What `dhcpOptions` of an interface adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraOptions {
    /// Option 67.
    pub boot_file_name: Option<String>,
    /// Option 66.
    pub tftp_server_name: Option<String>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Options 224 to 254.
    pub private: BTreeMap<u8, Vec<u8>>,
}

/// What is wrong with a field of `dhcpOptions`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct OptionProblem {
    /// The field, below `dhcpOptions`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl ExtraOptions {
    /// Reads `dhcpOptions`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of_spec(spec: &DhcpOptions) -> Result<Self, Vec<OptionProblem>> {
        let mut problems = Vec::new();
        let mut wrong = |field: String, message: String| problems.push(OptionProblem { field, message });
        let mut extra = Self::default();
        let texts = [
            ("bootFileName", &spec.boot_file_name, &mut extra.boot_file_name),
            ("tftpServerName", &spec.tftp_server_name, &mut extra.tftp_server_name),
        ];
        for (field, given, kept) in texts {
            match given.as_ref().filter(|text| !text.is_empty()) {
                Some(text) if text.len() > LONGEST => wrong(field.to_owned(), too_long(text.len())),
                text => *kept = text.cloned(),
            }
        }
        for (index, server) in spec.ntp_servers.iter().enumerate() {
            match server.parse() {
                Ok(address) => extra.ntp_servers.push(address),
                Err(_) => wrong(
                    format!("ntpServers[{index}]"),
                    "is no IPv4 address; DHCP takes no names".to_owned(),
                ),
            }
        }
        for (index, option) in spec.private_options.iter().enumerate() {
            let field = |name: &str| format!("privateOptions[{index}].{name}");
            let code = u8::try_from(option.option).ok().filter(|_| PRIVATE.contains(&option.option));
            match code {
                None => wrong(field("option"), format!("{} is not between 224 and 254", option.option)),
                Some(code) if extra.private.contains_key(&code) => {
                    wrong(field("option"), format!("{code} is there twice; remove one"));
                }
                Some(_) if option.value.is_empty() => {
                    wrong(field("value"), "is empty; remove the option".to_owned())
                }
                Some(_) if option.value.len() > LONGEST => {
                    wrong(field("value"), too_long(option.value.len()))
                }
                Some(code) => {
                    extra.private.insert(code, option.value.clone().into_bytes());
                }
            }
        }
        if problems.is_empty() { Ok(extra) } else { Err(problems) }
    }
}

fn too_long(length: usize) -> String {
    format!("has {length} bytes; an option takes {LONGEST}")
}

impl Lease {
    /// Codes and values, what matters more first. Those that say nothing are empty. Source of codes: RFC 2132, 3397,
    /// 3442.
    pub(crate) fn options(&self) -> Vec<(u8, Vec<u8>)> {
        let text = |text: Option<&str>| text.unwrap_or_default().as_bytes().to_vec();
        let mut options = vec![
            (1, mask(self.prefix).octets().to_vec()),
            // Before option 3. Source: RFC 3442.
            (121, self.classless_routes()),
            (3, addresses(self.router.as_slice())),
            (6, addresses(&self.resolver.servers)),
            (26, self.mtu.map(u16::to_be_bytes).as_slice().concat()),
            (12, text(self.host_name.as_deref())),
            (66, text(self.extra.tftp_server_name.as_deref())),
            (67, text(self.extra.boot_file_name.as_deref())),
            (42, addresses(&self.extra.ntp_servers)),
            (15, text(self.resolver.domain())),
            (119, domains(&self.resolver.search)),
        ];
        options.extend(self.extra.private.iter().map(|(code, value)| (*code, value.clone())));
        options
    }

    /// The default route last: the way to its gateway must be known before. Source: RFC 3442.
    fn classless_routes(&self) -> Vec<u8> {
        let mut routes = self.routes.clone();
        routes.sort_by_key(|route| route.prefix == 0);
        let mut bytes = Vec::new();
        for route in routes {
            let prefix = route.prefix.min(32);
            let significant = usize::from(prefix).div_ceil(8);
            let destination = Ipv4Addr::from_bits(route.destination.to_bits() & mask(prefix).to_bits());
            bytes.push(prefix);
            bytes.extend(destination.octets().into_iter().take(significant));
            bytes.extend(route.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        }
        bytes
    }
}
