//! Rules on how the guest boots.

use crate::firmware::inside;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{InstanceSpec, KernelBootContainer};

/// Longest kernel command line, without the NUL. Source: `COMMAND_LINE_SIZE` of Linux on x86.
const LONGEST_COMMAND_LINE: usize = 2047;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let path = path.field("domain.firmware.kernelBoot");
    let Some(boot) = spec.domain.firmware.as_ref().and_then(|firmware| firmware.kernel_boot.as_ref()) else {
        if spec.boot_disk().is_none() {
            let message = if findings.in_cluster() {
                "required: there is nothing to boot; add a disk with a volume that holds a system, such as \
                 containerDisk, or give a kernel in container: {image: IMAGE, kernelPath: /vmlinuz}"
            } else {
                "required: there is nothing to boot; add a disk with a hostDisk volume, or give a kernel in container: \
                 {image: \"file:///DIR\", kernelPath: vmlinuz}"
            };
            findings.add(&path, ProblemCode::Required, message);
        }
        return;
    };
    if let Some(arguments) = &boot.kernel_args {
        let path = path.field("kernelArgs");
        if arguments.len() > LONGEST_COMMAND_LINE {
            let message = format!(
                "{} bytes are more than the {LONGEST_COMMAND_LINE} that the kernel takes",
                arguments.len()
            );
            findings.add(&path, ProblemCode::Invalid, message);
        }
        if arguments.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
            findings.add(&path, ProblemCode::Invalid, "holds a control character");
        }
    }
    match &boot.container {
        Some(boot) => container(boot, &path.field("container"), findings),
        None => {
            let message = "required: where are the kernel and the initrd?";
            findings.add(&path.field("container"), ProblemCode::Required, message);
        }
    }
}

fn container(boot: &KernelBootContainer, path: &FieldPath, findings: &mut Findings) {
    let is_local = boot.image.starts_with("file:");
    if findings.in_cluster() && is_local {
        let message = "for `pinion run` on one host only: name an image that nodes of the cluster pull";
        findings.add(&path.field("image"), ProblemCode::HostOnly, message);
    } else if !findings.in_cluster() && !boot.image.is_empty() && boot.directory().is_none() {
        let path = path.field("image");
        if is_local {
            let message = "must be file:///DIR with an absolute directory of this host, without ..";
            findings.add(&path, ProblemCode::Invalid, message);
        } else {
            let message = "for clusters only: on one host images are not pulled from a registry; unpack it, and use file:///DIR";
            findings.add(&path, ProblemCode::ClusterOnly, message);
        }
    }
    if boot.kernel_path.as_deref().unwrap_or_default().is_empty() {
        let message = "required: the kernel's path inside the image";
        findings.add(&path.field("kernelPath"), ProblemCode::Required, message);
    }
    for (field, given) in [("kernelPath", &boot.kernel_path), ("initrdPath", &boot.initrd_path)] {
        let given = given.as_deref().filter(|given| !given.is_empty());
        if given.is_some_and(|given| inside(given).is_none()) {
            let message = "must be a path inside the image, without ..";
            findings.add(&path.field(field), ProblemCode::Invalid, message);
        }
    }
}
