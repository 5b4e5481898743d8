//! The same on a lab host: Debian's kernel, with what of nftables it has as modules.

use std::time::Duration;

use pinion_lab::{Cache, Files, Kernel, Lab, Shape};

/// Modules beside those that a lab host has, with what they need.
const MODULES: [&str; 14] = [
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_meta_bridge",
    "crc32c_generic",
    "br_netfilter",
];
const LIMIT: Duration = Duration::from_secs(180);

/// A node's kernel, which loads modules when they are first asked for. `br_netfilter` as on every node of Kubernetes.
#[test]
fn on_a_lab_host_with_debians_kernel() {
    let kernel = Kernel::of_debian(&Cache::of_user()).unwrap();
    let mut files = Files::new().with_program("/bin/pod-tests", &std::env::current_exe().unwrap()).unwrap();
    for name in MODULES {
        let Ok(file) = kernel.module(name) else { continue };
        files = files.with(format!("/lib/modules/{}/{name}.ko", kernel.release()), file);
    }
    let lab = Lab::boot("pod-network", &Shape::small(), &files).unwrap();
    let script = "depmod && modprobe -a br_netfilter veth && pod-tests --skip debian:: --test-threads 2";
    let output = lab.sh(script, LIMIT).unwrap();
    assert!(output.success() && !output.timed_out, "{}{}", output.text(), output.error_text());
    assert!(!output.text().contains("skipped"), "{}", output.text());
    assert!(output.text().contains("9 passed"), "{}", output.text());
}
