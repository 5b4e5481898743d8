//! Name servers and search domains, as `resolv.conf` has them.
//!
//! Pure. The text is the pod's: what cannot be told to a guest by DHCP is left out.

use std::net::Ipv4Addr;

/// More than any resolver uses.
const MOST_SERVERS: usize = 16;
const MOST_DOMAINS: usize = 32;
/// Source: RFC 1035, section 2.3.4.
const LONGEST_DOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;

/// How the guest resolves names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// IPv4 addresses of name servers, best first.
    pub servers: Vec<Ipv4Addr>,
    /// Search domains, in order.
    pub search: Vec<String>,
}

impl Resolver {
    /// Reads a `resolv.conf`. Servers with IPv6 addresses and what is no domain name are left out; the last `search` or
    /// `domain` counts, as in resolv.conf(5).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.servers.extend(words.next().and_then(|word| word.parse::<Ipv4Addr>().ok()));
                }
                Some("search" | "domain") => {
                    let words = words.take_while(|word| !word.starts_with(['#', ';']));
                    let names = words.map(|word| word.strip_suffix('.').unwrap_or(word));
                    let valid = names.filter(|name| is_domain(name));
                    resolver.search = valid.take(MOST_DOMAINS).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        resolver.servers.truncate(MOST_SERVERS);
        resolver
    }

    /// The domain of the guest: the longest search domain, which is the most exact one.
    pub(crate) fn domain(&self) -> Option<&str> {
        let longest = self.search.iter().map(String::len).max()?;
        self.search.iter().map(String::as_str).find(|name| name.len() == longest)
    }
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= LONGEST_DOMAIN && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_file_gives_its_servers_and_domains() {
        let text = "# made by the kubelet\nsearch default.svc.cluster.local svc.cluster.local cluster.local.\n\
            nameserver 10.96.0.10\nnameserver fd00::1\nnameserver\noptions ndots:5\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers, [Ipv4Addr::new(10, 96, 0, 10)]);
        assert_eq!(resolver.search, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(resolver.domain(), Some("default.svc.cluster.local"));
    }

    #[test]
    fn what_is_no_domain_is_left_out_and_the_last_line_counts() {
        let long = "x".repeat(64);
        let text = format!("search a.b\ndomain . a..b {long} é.org ok_1.example # c.d");
        assert_eq!(Resolver::parse(&text).search, ["ok_1.example"]);
        assert_eq!(Resolver::parse("").domain(), None);
        let many = "nameserver 10.0.0.1\n".repeat(100);
        assert_eq!(Resolver::parse(&many).servers.len(), MOST_SERVERS);
    }
}
