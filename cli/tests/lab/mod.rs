//! A lab host with Pinion and a guest's kernel and initrd in it.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::path::Path;
use std::time::Duration;

use pinion_lab::{Files, Kernel, Lab, LabError, Output, Programs, Shape, guest_initrd};

/// Long enough for a guest inside an emulated host on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(200);
/// Long enough for a command that starts no guest.
pub(crate) const QUICK: Duration = Duration::from_secs(60);

/// How often a test is tried where emulation stops.
const ATTEMPTS: usize = 3;

/// The emulated host does not answer any more, or a guest in it stands still: what was waited for.
pub(crate) struct Frozen(pub(crate) String);

/// Boots a lab host whose guests run `script`, and tests on it. Debian's own QEMU now and then stops one of the host's
/// CPUs for good (`docs/decisions/0008`): that says nothing about Pinion, so the test runs again, on a fresh host.
pub(crate) fn on_lab(name: &str, shape: &Shape, script: &str, files: &Files, test: impl Fn(&Lab)) {
    let attempt = || {
        let lab = lab(name, shape, script, files);
        test(&lab);
    };
    for left in (0..ATTEMPTS).rev() {
        let Err(why) = catch_unwind(AssertUnwindSafe(attempt)) else { return };
        let why = why.downcast::<Frozen>().unwrap_or_else(|why| resume_unwind(why));
        assert!(left > 0, "{name}: {ATTEMPTS} times it stood still, the last time at `{}`", why.0);
        println!("{name}: it stands still at `{}`; once more on a fresh host", why.0);
    }
}

/// Runs a shell script that ends before the limit, and gives what it printed.
pub(crate) fn sh(lab: &Lab, script: &str, limit: Duration) -> Output {
    match lab.sh(script, limit) {
        Err(LabError::Agent { .. }) => panic_any(Frozen(script.to_owned())),
        Ok(output) => {
            assert!(!output.timed_out, "not done after {limit:?}: `{script}`: {}", both(&output));
            output
        }
        Err(other) => panic!("`{script}`: {other}"),
    }
}

fn lab(name: &str, shape: &Shape, script: &str, files: &Files) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let initrd = folder.path().join("initrd");
    guest_initrd(script, &initrd).unwrap();
    let kernel = Kernel::of_debian(&pinion_lab::Cache::of_user()).unwrap();
    let mut files = files
        .clone()
        .with("/var/lib/pinion/debian/vmlinuz", kernel.image())
        .with("/var/lib/pinion/debian/initrd", &initrd);
    for name in ["pinion", "pinion-launcher", "pinion-image"] {
        let program = Programs::built().unwrap().path(name);
        files = files.with_program(Path::new("/usr/bin").join(name), &program).unwrap();
    }
    let lab = Lab::boot(name, shape, &files).unwrap();
    println!("{name}: up in {:?}", lab.boot_time());
    lab
}

/// Runs a shell script that must succeed, and gives its output.
pub(crate) fn must(lab: &Lab, script: &str, limit: Duration) -> String {
    let output = sh(lab, script, limit);
    assert!(output.success(), "`{script}`: {}", both(&output));
    output.text()
}

/// Everything a command printed.
pub(crate) fn both(output: &Output) -> String {
    format!("code {:?}\n{}\n{}", output.code, output.text(), output.error_text())
}
