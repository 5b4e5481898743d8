//! What a guest prints on its console.

use std::panic::panic_any;
use std::time::Duration;

use pinion_lab::Lab;

use crate::lab::{Frozen, both, sh};

/// What the script ends with where a guest has printed nothing for long.
const SILENT: i32 = 9;

/// Waits until the guest whose files are in `at` says something: its `console`, the `log` of its command, and the number of
/// that in `pid`. One that prints nothing for minutes, and lives, is taken for one whose emulation has stopped.
/// Each look is five processes, which take time from the guest: twice a second is enough.
pub(crate) fn wait(lab: &Lab, at: &str, says: &str, limit: Duration) {
    let script = format!(
        "cd {at}; S=; Q=0; while ! grep -q '{says}' console; do kill -0 $(cat pid) || break; N=$(wc -c < console); \
         [ \"$N\" = \"$S\" ] && Q=$((Q + 1)) || Q=0; S=$N; [ $Q -gt 200 ] && exit {SILENT}; sleep 0.5; done; \
         grep -q '{says}' console && exit 0; tail -c 3000 console; cat log; tail -n 5 /var/log/libvirt/qemu/*.log; exit 1"
    );
    let output = sh(lab, &script, limit);
    if output.code == Some(SILENT) {
        println!("{says}: {}", both(&output));
        panic_any(Frozen(says.to_owned()));
    }
    assert!(output.success(), "{says}: {}", both(&output));
}
