//! A lab host with Pinion and a guest's kernel and initrd in it.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinion_lab::{Files, Kernel, Lab, LabError, Output, Shape, guest_initrd};

/// Long enough for a guest inside an emulated host on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(200);
/// Long enough for a command that starts no guest.
pub(crate) const QUICK: Duration = Duration::from_secs(60);

/// How often a test is tried where emulation stops.
const ATTEMPTS: usize = 3;

/// The emulated host does not answer any more, or a guest in it stands still: what was waited for.
pub(crate) struct Frozen(pub(crate) String);

/// Boots a lab host whose guests run `script`, and tests on it. Emulation of a virtual machine inside a virtual
/// machine now and then stops for good when processes that use KVM are killed: that is the emulator's
/// fault and says nothing about Pinion, so the test runs again, on a fresh host.
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
        Ok(output) if output.timed_out => {
            println!("{}", both(&output));
            panic_any(Frozen(script.to_owned()))
        }
        done => done.unwrap(),
    }
}

fn lab(name: &str, shape: &Shape, script: &str, files: &Files) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let initrd = folder.path().join("initrd");
    guest_initrd(script, &initrd).unwrap();
    let kernel = Kernel::of_debian(&pinion_lab::Cache::of_user()).unwrap();
    let pinion = PathBuf::from(env!("CARGO_BIN_EXE_pinion"));
    let launcher = launcher(&pinion);
    let files = files
        .clone()
        .with("/var/lib/pinion/debian/vmlinuz", kernel.image())
        .with("/var/lib/pinion/debian/initrd", &initrd)
        .with_program("/usr/bin/pinion", &stripped(&pinion, folder.path()))
        .unwrap()
        .with_program("/usr/bin/pinion-launcher", &stripped(&launcher, folder.path()))
        .unwrap()
        .with_program(
            "/usr/bin/pinion-image",
            &stripped(&launcher.with_file_name("pinion-image"), folder.path()),
        )
        .unwrap();
    let lab = Lab::boot(name, shape, &files).unwrap();
    println!("{name}: up in {:?}", lab.boot_time());
    lab
}

/// The launcher beside `pinion`, built: cargo builds programs of other packages for no test.
fn launcher(pinion: &Path) -> PathBuf {
    let target = pinion.parent().and_then(Path::parent).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "-p", "pinion-launcher", "--target-dir"]).arg(target);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().unwrap().success());
    pinion.with_file_name("pinion-launcher")
}

/// A program without its symbols, which would only make the lab slow to boot.
fn stripped(program: &Path, folder: &Path) -> PathBuf {
    let to = folder.join(program.file_name().unwrap());
    let done = std::process::Command::new("strip").arg("-o").arg(&to).arg(program).status().unwrap();
    assert!(done.success());
    to
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
