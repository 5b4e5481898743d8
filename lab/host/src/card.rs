//! Network cards of lab hosts, as data.

use std::path::PathBuf;

/// A network card, and what is at its other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// QEMU's own network: the host is 10.0.2.15 and reaches this machine's loopback as 10.0.2.2, and what that reaches.
    Outside {
        /// TCP ports of this machine's loopback that lead to ports of the host.
        forwards: Vec<(u16, u16)>,
    },
    /// A cable to another lab host: one end listens, and is started first.
    Cable {
        /// A socket, by which the two QEMUs find each other.
        socket: PathBuf,
        /// Whether this end listens.
        listens: bool,
        /// Tells the cards of one network from each other: the last bytes of the card's address.
        number: u16,
    },
}

impl Card {
    /// QEMU's words for the card of this number in its host.
    pub(crate) fn words(&self, number: usize) -> [(&'static str, String); 2] {
        let (backend, mac) = match self {
            Self::Outside { forwards } => {
                let forwards: String = forwards
                    .iter()
                    .map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}"))
                    .collect();
                (format!("user,id=net{number},ipv6=off{forwards}"), String::new())
            }
            Self::Cable { socket, listens, number: end } => {
                let server = if *listens { "on" } else { "off" };
                let [high, low] = end.to_be_bytes();
                (
                    format!(
                        "stream,id=net{number},server={server},addr.type=unix,addr.path={}",
                        socket.display()
                    ),
                    format!(",mac=52:54:00:99:{high:02x}:{low:02x}"),
                )
            }
        };
        let device = format!("virtio-net-pci,netdev=net{number},bus=pcie.0,romfile={mac}");
        [("-netdev", backend), ("-device", device)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_become_arguments() {
        let outside = Card::Outside { forwards: vec![(4000, 80)] };
        let [(_, backend), (_, device)] = outside.words(0);
        assert_eq!(backend, "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:4000-:80");
        assert_eq!(device, "virtio-net-pci,netdev=net0,bus=pcie.0,romfile=");
        let cable = Card::Cable { socket: "/run/cable".into(), listens: true, number: 258 };
        let [(_, backend), (_, device)] = cable.words(1);
        assert_eq!(backend, "stream,id=net1,server=on,addr.type=unix,addr.path=/run/cable");
        assert!(device.ends_with(",mac=52:54:00:99:01:02"), "{device}");
    }
}
