//! Rules on memory and huge pages.

use crate::InstanceSpec;
use crate::effective::{HUGE_PAGES, ORDINARY_PAGE};
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::quantity::Quantity;

/// Least memory that a kernel boots in, bytes.
const LEAST_MEMORY: u64 = 1 << 20;
/// Most memory of a guest, bytes: what 46 physical address bits leave beside the devices.
const MOST_MEMORY: u64 = 32 << 40;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let memory = path.field("domain.memory");
    page_size(spec, &memory.field("hugepages.pageSize"), findings);
    let requests = path.field("domain.resources.requests.memory");
    let limits = path.field("domain.resources.limits.memory");
    let given = spec.domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    let (request, limit) = (spec.request("memory"), spec.limit("memory"));

    // The field that says how much.
    let (source, amount) = match (given, request, limit) {
        (Some(amount), _, _) => (memory.field("guest"), amount.clone()),
        (None, Some(amount), _) => (requests.clone(), amount.clone()),
        (None, None, Some(amount)) => (limits.clone(), amount.clone()),
        (None, None, None) => {
            // Rule 1, for every guest; huge pages alone give one page.
            if spec.huge_page_text().is_none() {
                let message = "required: how much memory has the guest?";
                findings.add(&memory.field("guest"), ProblemCode::Required, message);
            }
            return;
        }
    };
    size(spec, &source, &amount, findings);
    // Rule 4.
    if let (true, Some(request), Some(limit)) = (spec.dedicated_cpus(), request, limit)
        && request < limit
    {
        let message = format!("{request} must be equal to the limit of {limit} with dedicated CPUs");
        findings.add(&requests, ProblemCode::Conflict, message);
    }
    let Some(guest) = given else { return };
    // Rule 24.
    if limit.is_some_and(|limit| guest > limit) {
        let message = format!("{guest} is more than the limit in resources.limits.memory");
        findings.add(&memory.field("guest"), ProblemCode::Conflict, message);
    }
    if let Some(request) = request.filter(|request| *request != guest) {
        let message = if request > guest {
            format!(
                "{request} is more than the guest's {guest}: what a guest needs beside its memory is not reserved; remove it"
            )
        } else {
            format!("{request} is less than the guest's {guest}: memory is never overcommitted; remove it")
        };
        findings.add(&requests, ProblemCode::Conflict, message);
    }
}

fn page_size(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let Some(hugepages) = spec.domain.memory.as_ref().and_then(|memory| memory.hugepages.as_ref()) else {
        return;
    };
    let sizes = HUGE_PAGES.map(|(name, _)| name).join(" or ");
    let Some(text) = hugepages.page_size.as_deref().filter(|text| !text.is_empty()) else {
        findings.add(path, ProblemCode::Required, format!("required: use {sizes}"));
        return;
    };
    // Rule 25, and stricter: a size that no x86-64 host has is refused at once.
    if spec.huge_page().is_none() {
        let message =
            format!("{:?} is no size of huge pages on x86-64: use {sizes}", crate::node::shorten(text));
        findings.add(path, ProblemCode::Invalid, message);
    }
}

/// The amount by itself, and against the pages.
fn size(spec: &InstanceSpec, path: &FieldPath, amount: &Quantity, findings: &mut Findings) {
    if amount.is_negative() {
        // Negative requests and limits are reported with the resources.
        if path.to_string().ends_with("guest") {
            findings.add(path, ProblemCode::Invalid, format!("{amount} is negative"));
        }
        return;
    }
    let bytes = amount.rounded_up();
    if bytes < LEAST_MEMORY {
        // Rule 21.
        findings.add(path, ProblemCode::Invalid, format!("{amount} is less than 1Mi: too little to boot in"));
    } else if bytes > MOST_MEMORY {
        findings.add(path, ProblemCode::Invalid, format!("{amount} is more than the 32Ti a guest can have"));
    } else if let Some(page) =
        spec.huge_page().filter(|page| *page > ORDINARY_PAGE && !bytes.is_multiple_of(*page))
    {
        // Rules 26 and 27.
        let page = Quantity::from_bytes(page);
        let message = format!("{amount} is not a whole number of {page} pages: round it up");
        findings.add(path, ProblemCode::Invalid, message);
    }
}
