//! Names of the sockets on which the kubelet reaches the plugin of each resource.

use uuid::Uuid;

/// Longest name that leaves room for the kubelet's folder in the address of a socket, bytes (`unix(7)`: 108 in all).
const MOST: usize = 64;

/// The socket of a resource, in the kubelet's folder of device plugins. The same at each start, and another for each
/// resource: a resource's name has one `/` and no `@`, and a name that would be too long gives way to a number that is
/// made of it.
#[must_use]
pub fn socket_name(resource: &str) -> String {
    let plain = format!("pinion-{}.sock", resource.replace('/', "@"));
    if plain.len() <= MOST {
        plain
    } else {
        format!("pinion-{}.sock", Uuid::new_v5(&Uuid::NAMESPACE_DNS, resource.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_a_socket_of_its_own_that_can_be_bound() {
        assert_eq!(socket_name("example.com/gpu-a.b_c"), "pinion-example.com@gpu-a.b_c.sock");
        let long = |last: char| socket_name(&format!("{}/{}{last}", "d".repeat(200), "n".repeat(200)));
        assert!(long('a').len() <= MOST && long('a') != long('b') && long('a') == long('a'));
    }
}
