//! `pinion restore`: puts back what guests that are gone have changed of this host.

use pinion_node_agent::{Keeper, Ledger, Notice};

use crate::arguments::RestoreOptions;
use crate::failure::Failure;
use crate::output;
use crate::run::hosting::Hosting;

/// Puts it back, and says what.
///
/// # Errors
/// When the ledger cannot be read or changed, or something is not as it was.
pub(crate) fn run(options: &RestoreOptions) -> Result<(), Failure> {
    let ledger = Ledger::at(&options.ledger);
    if Hosting::at(&options.ledger).is_agent() {
        return output::text("nothing to do: the node agent looks after this host\n");
    }
    let before = ledger.read().map_err(Failure::failed)?.changes;
    let notices = Keeper::new(&ledger).settle().map_err(Failure::failed)?;
    let after = ledger.read().map_err(Failure::failed)?.changes;
    let restored = before.settings.iter().filter(|c| !after.settings.iter().any(|a| a.setting == c.setting));
    let mut text: String = restored.map(|c| format!("{}: {}\n", c.setting, c.was)).collect();
    let (wrong, right): (Vec<Notice>, Vec<Notice>) = notices.into_iter().partition(Notice::is_warning);
    text.extend(right.iter().map(|notice| format!("{notice}\n")));
    if text.is_empty() && wrong.is_empty() {
        text.push_str("nothing to do: guests that are gone have left nothing changed\n");
    }
    output::text(&text)?;
    for notice in &wrong {
        eprintln!("pinion: {notice}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Silent(1)) }
}
