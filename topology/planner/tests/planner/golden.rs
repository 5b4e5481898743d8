//! The JSON that others read, key by key.

use pinion_machine::{Bdf, PageSize};
use pinion_planner::{IoThreadPlace, Placement, Refusal, Request, Shape, plan};
use serde_json::json;

use crate::requests::{dedicated, device, held, io_thread, shared};

fn request() -> Request {
    let mut request = dedicated(1, 3, 2, 6 << 20);
    request.memory.page_size = PageSize::MIB2;
    request.cpu.realtime = vec![0];
    request.io_threads = vec![io_thread(1, IoThreadPlace::Dedicated)];
    request.devices = vec![device("gpu", &[Bdf::new(0, 0x3b, 0, 0).unwrap()])];
    request
}

fn shape() -> Shape {
    Shape::new(2, 3).threads(2).huge_pages(PageSize::MIB2, 4).device(Bdf::new(0, 0x3b, 0, 0).unwrap(), 1, 7)
}

#[test]
fn a_placement_has_these_keys() {
    let mut occupancy = held("", 0);
    occupancy.generation = 5;
    let placed = plan(&shape().build(), &occupancy, &request()).unwrap();
    let expected = json!({
        "name": "t/vm",
        "generation": 5,
        "vcpus": [
            {"id": 0, "socket": 0, "core": 0, "thread": 0, "cell": 0, "cpu": 3, "realtime": true},
            {"id": 1, "socket": 0, "core": 0, "thread": 1, "cell": 0, "cpu": 9},
            {"id": 2, "socket": 0, "core": 1, "thread": 0, "cell": 0, "cpu": 4},
            {"id": 3, "socket": 0, "core": 1, "thread": 1, "cell": 0, "cpu": 10},
            {"id": 4, "socket": 0, "core": 2, "thread": 0, "cell": 0, "cpu": 5},
            {"id": 5, "socket": 0, "core": 2, "thread": 1, "cell": 0, "cpu": 11},
        ],
        "emulator": {"cpus": [0, 6]},
        "ioThreads": [{"id": 1, "cpus": [1], "disks": ["disk1"]}],
        "cells": [{
            "id": 0, "hostNode": 1, "memoryBytes": 6_291_456, "pageSizeBytes": 2_097_152,
            "vcpus": [0, 1, 2, 3, 4, 5], "distances": [10],
        }],
        "devices": [
            {"name": "gpu", "address": "0000:3b:00.0", "iommuGroup": 7, "hostNode": 1, "cell": 0,
             "interruptCpus": [0, 6]},
        ],
    });
    assert_eq!(serde_json::to_value(&placed).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Placement>(expected).unwrap(), placed);
}

#[test]
fn shared_vcpus_have_cpus_in_place_of_a_cpu() {
    let placed = plan(&Shape::new(1, 2).build(), &held("", 0), &shared(1, 4096)).unwrap();
    let expected = json!({"id": 0, "socket": 0, "core": 0, "thread": 0, "cell": 0, "cpus": [1]});
    assert_eq!(serde_json::to_value(&placed.vcpus[0]).unwrap(), expected);
}

#[test]
fn a_refusal_has_these_keys() {
    let mut occupancy = held("1", 0);
    occupancy.housekeeping = "0".parse().unwrap();
    let mut request = request();
    request.io_threads.clear();
    request.devices.clear();
    request.cpu.topology.cores = 6;
    let refused = plan(&shape().build(), &occupancy, &request).unwrap_err();
    let expected = json!({
        "name": "t/vm",
        "reason": "InsufficientCpus",
        "message": "t/vm does not fit: node 0 has 1 of the 3 free cores of 2 threads needed there \
            (housekeeping holds 1, t/other holds 1); 3 cores of 2 threads with 3 pages of 2Mi would fit now",
        "shortages": [{
            "resource": "cores", "node": 0, "needed": 3, "free": 1,
            "heldBy": [{"owner": "housekeeping", "amount": 1}, {"owner": "t/other", "amount": 1}],
        }],
        "nearest": {
            "topology": {"sockets": 1, "cores": 3, "threads": 2},
            "memory": {"bytes": 6_291_456, "pageSize": 2_097_152},
        },
    });
    assert_eq!(serde_json::to_value(&refused).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Refusal>(expected).unwrap(), refused);
}
