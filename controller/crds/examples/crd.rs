//! Prints the definition of one kind: `manifests/crds/NAME.yaml`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else { return ExitCode::from(2) };
    let Some(definition) = pinion_crds::DEFINITIONS.iter().find(|d| d.plural == name) else {
        return ExitCode::from(2);
    };
    print!("{}", pinion_api::to_yaml(&definition.document()));
    ExitCode::SUCCESS
}
