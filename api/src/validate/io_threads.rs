//! Rules on I/O threads.

use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{InstanceSpec, IoThreadsPolicy};

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let domain = &spec.domain;
    let path = path.field("domain.ioThreads.supplementalPoolThreadCount");
    let count =
        domain.io_threads.as_ref().and_then(|threads| threads.supplemental_pool_thread_count).unwrap_or(0);
    let is_pool = domain.io_threads_policy == Some(IoThreadsPolicy::SupplementalPool);
    let disks = domain.devices.disks.iter().filter(|disk| !disk.has_own_thread()).count();
    // Rule 31.
    if is_pool && count == 0 {
        let message = "required by the policy supplementalPool: at least 1";
        findings.add(&path, ProblemCode::Required, message);
    } else if is_pool && usize::try_from(count).is_ok_and(|count| count > disks) {
        let message = format!(
            "{count} threads for {disks} disks without their own: a disk is served by one thread, so make it at most {disks}"
        );
        findings.add(&path, ProblemCode::Invalid, message);
    } else if !is_pool && count > 0 {
        let message = "has no effect without ioThreadsPolicy: supplementalPool";
        findings.add(&path, ProblemCode::Conflict, message);
    }
}
