//! Prints the definition of one kind: `manifests/crds/NAME.yaml`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else { return ExitCode::from(2) };
    let document = match pinion_crds::DEFINITIONS.iter().find(|d| d.plural == name) {
        Some(definition) => definition.document(),
        None if name == pinion_crds::LEDGER_PLURAL => pinion_crds::ledger_document(),
        None if name == pinion_crds::PROFILE_PLURAL => pinion_crds::profile_document(),
        None => return ExitCode::from(2),
    };
    print!("{}", pinion_api::to_yaml(&document));
    ExitCode::SUCCESS
}
