//! A kubelet that tells of one pod, for hosts without one: `fake-kubelet SOCKET NAMESPACE POD CPUS ALLOCATABLE`.

use std::error::Error;
use std::path::Path;

use pinion_machine::CpuSet;
use pinion_pod_resources::fake::FakeKubelet;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, namespace, pod, cpus, allocatable] = arguments.as_slice() else {
        return Err("fake-kubelet SOCKET NAMESPACE POD CPUS ALLOCATABLE".into());
    };
    let numbers = |list: &str| -> Result<Vec<i64>, Box<dyn Error>> {
        Ok(list.parse::<CpuSet>()?.iter().map(|cpu| i64::from(cpu.0)).collect())
    };
    let kubelet = FakeKubelet::new(&numbers(allocatable)?).pod(namespace, pod, &numbers(cpus)?, &[]);
    kubelet.serve(Path::new(socket))?;
    loop {
        std::thread::park();
    }
}
