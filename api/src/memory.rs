//! `domain.memory`: the guest's memory and the pages that back it.

use crate::Quantity;
use crate::schema::Status::{Part, Planned, Works};

object! {
    "Memory: how much, on what pages."
    Memory {
        guest "guest": Option<Quantity>, Works("The memory request where absent, else the memory limit, else one huge page."), "Memory the guest sees.";
        hugepages "hugepages": Option<Hugepages>, Works(""), "Huge pages.";
        max_guest "maxGuest": Option<Quantity>, Planned("memory is not hot-plugged; remove it"), "Memory after hot-plug.";
        reserved_overhead "reservedOverhead": Option<ReservedOverhead>, Planned("the overhead is fixed and small; remove it"), "Overhead to set aside.";
    }

    "Huge pages."
    Hugepages {
        page_size "pageSize": Option<String>, Works("`2Mi` or `1Gi`; others are refused at once."), "Size of a page.";
    }

    "Overhead to set aside."
    ReservedOverhead {
        added_overhead "addedOverhead": Option<Quantity>, Part, "How much.";
        mem_lock "memLock": Option<String>, Part, "`Required` or `NotRequired`.";
    }
}
