//! Making an interface, and looking whether it is still as it was made.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use crate::binding::{Binding, PodInterface};
use crate::bridge::Bridge;
use crate::differences::{Difference, Differences};
use crate::error::NetworkError;
use crate::firewall::Firewall;
use crate::guest::GuestLink;
use crate::links::Links;
use crate::masquerade::Masquerade;
use crate::namespace::inside;
use crate::socket;

/// A guest's interface, made. Its tap is gone when the last holder of the descriptor is.
#[derive(Debug)]
pub struct Prepared {
    /// The tap device: virtio headers of 12 bytes, no offloads yet, not blocking. What the VMM's network device takes.
    pub tap: OwnedFd,
    /// For the guest's DHCP server; none where the guest gets no address from the pod.
    pub dhcp: Option<UdpSocket>,
    /// What the launcher is told.
    pub guest: GuestLink,
}

enum Plan {
    Masquerade(Masquerade),
    Bridge(Bridge),
}

/// Makes what an interface needs in the network namespace of a pod (an open `/proc/PID/ns/net`), and reads it back.
///
/// What is there already is kept or put right, so that it may be done again after any failure, and by another agent.
/// A tap that a launcher holds is never taken from it. The caller waits: some milliseconds, more where the kernel loads
/// modules.
///
/// # Errors
/// [`NetworkError`]; what was made of the interface so far stays, but for the tap.
pub fn prepare(namespace: &File, interface: &PodInterface) -> Result<Prepared, NetworkError> {
    inside(namespace, || async {
        let (links, firewall) = (Links::here()?, Firewall::here()?);
        let plan = plan(interface, true, &links).await?;
        let (tap, device, guest) = match &plan {
            Plan::Masquerade(plan) => {
                (plan.make(&links, &firewall).await?, Some(plan.dhcp_device()), plan.guest())
            }
            Plan::Bridge(plan) => (plan.make(&links, &firewall).await?, plan.dhcp_device(), plan.guest()),
        };
        let dhcp = device.map(socket::bound_to).transpose()?;
        let found = compare(&plan, &links, &firewall).await?;
        if !found.is_empty() {
            return Err(NetworkError::Differs(found));
        }
        Ok(Prepared { tap, dhcp, guest })
    })
}

/// What of an interface is not as [`prepare`] makes it.
///
/// # Errors
/// [`NetworkError`] where it cannot be looked at.
pub fn differences(namespace: &File, interface: &PodInterface) -> Result<Vec<Difference>, NetworkError> {
    inside(namespace, || async {
        let (links, firewall) = (Links::here()?, Firewall::here()?);
        compare(&plan(interface, false, &links).await?, &links, &firewall).await
    })
}

async fn plan(interface: &PodInterface, keep: bool, links: &Links) -> Result<Plan, NetworkError> {
    Ok(match &interface.binding {
        Binding::Masquerade { network, ports } => {
            Plan::Masquerade(Masquerade::plan(interface, *network, ports, links).await?)
        }
        Binding::Bridge { mac, record } => {
            Plan::Bridge(Bridge::plan(interface, *mac, record, keep, links).await?)
        }
    })
}

async fn compare(plan: &Plan, links: &Links, firewall: &Firewall) -> Result<Vec<Difference>, NetworkError> {
    let mut found = Differences::default();
    match plan {
        Plan::Masquerade(plan) => plan.differences(links, firewall, &mut found).await?,
        Plan::Bridge(plan) => plan.differences(links, firewall, &mut found).await?,
    }
    Ok(found.0)
}
