//! Doorbells: guest writes that signal an eventfd inside the kernel.

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_bus::{AttachError, DoorbellAddress, Doorbells};
use vmm_sys_util::eventfd::EventFd;

use crate::router::KvmRouter;

fn address(address: DoorbellAddress) -> IoEventAddress {
    match address {
        DoorbellAddress::Mmio(gpa) => IoEventAddress::Mmio(gpa.0),
        DoorbellAddress::Port(port) => IoEventAddress::Pio(port.0.into()),
    }
}

impl Doorbells for KvmRouter {
    fn attach(&self, at: DoorbellAddress, value: Option<u16>, event: &EventFd) -> Result<(), AttachError> {
        let attached = match value {
            Some(value) => self.vm.register_ioevent(event, &address(at), value),
            None => self.vm.register_ioevent(event, &address(at), NoDatamatch),
        };
        attached.map_err(|e| AttachError {
            action: "attach a doorbell",
            object: format!("{at:?}"),
            source: e.into(),
        })
    }

    fn detach(&self, at: DoorbellAddress, value: Option<u16>, event: &EventFd) -> Result<(), AttachError> {
        let detached = match value {
            Some(value) => self.vm.unregister_ioevent(event, &address(at), value),
            None => self.vm.unregister_ioevent(event, &address(at), NoDatamatch),
        };
        detached.map_err(|e| AttachError {
            action: "detach a doorbell",
            object: format!("{at:?}"),
            source: e.into(),
        })
    }
}
