//! `pinion plan`: where the VMs of a file would go, or why they cannot.
//!
//! Plans each VM beside those before it in the file. Changes nothing.

mod picture;

use pinion_api::VirtualMachineInstance;
use pinion_machine::Machine;
use pinion_map::View;
use pinion_node_agent::PagesWish;
use pinion_planner::{HoldingState, Occupancy, Placement, Refusal};
use serde_json::{Value, json};

use crate::arguments::{PictureFormat, PlanOptions};
use crate::failure::{Failure, REFUSED};
use crate::resources::{DeviceNames, Wanted};
use crate::{backend, huge_pages, machine, output, specs};

pub(crate) use picture::{explain, summary};

/// What the planner said of each VM, in the order of the file, and what is taken after it.
pub(crate) struct Plans {
    pub(crate) answers: Vec<Result<Placement, Refusal>>,
    /// Huge pages that would be made for them.
    pub(crate) pages: Vec<PagesWish>,
    pub(crate) after: Occupancy,
}

/// Prints the plan.
///
/// # Errors
/// [`Failure::Silent`] with exit code 3 when a VM is refused.
pub(crate) fn run(options: &PlanOptions) -> Result<(), Failure> {
    let instances = specs::read(&options.file)?;
    let names = DeviceNames::read(options.devices.as_deref())?;
    let (machine, occupancy) = machine::read(&options.machine)?;
    let plans = plan_all(&machine, occupancy, &instances, &names)?;
    if options.output == PictureFormat::Text {
        let look = matches!(options.machine.from, pinion_discovery::From::Host);
        let lines = instances.iter().map(|i| backend::describe(i, look) + "\n");
        output::text(&lines.collect::<String>())?;
    }
    show(&machine, &plans, options.output)?;
    if plans.answers.iter().all(Result::is_ok) { Ok(()) } else { Err(Failure::Silent(REFUSED)) }
}

/// Plans each VM beside those before it.
///
/// # Errors
/// [`Failure::Invalid`] when a spec asks for something that cannot be resolved here.
pub(crate) fn plan_all(
    machine: &Machine,
    mut occupancy: Occupancy,
    instances: &[VirtualMachineInstance],
    names: &DeviceNames,
) -> Result<Plans, Failure> {
    let mut answers = Vec::with_capacity(instances.len());
    let mut pages = Vec::new();
    for instance in instances {
        let request = names.request(machine, instance, Wanted::Assignable)?;
        let answer = huge_pages::place(machine, &occupancy, &request, true);
        if let Ok((placement, made)) = &answer {
            occupancy.holdings.push(placement.holding(HoldingState::Reserved));
            pages.extend_from_slice(made);
        }
        answers.push(answer.map(|(placement, _)| placement));
    }
    Ok(Plans { answers, pages, after: occupancy })
}

/// Prints plans in a format.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn show(machine: &Machine, plans: &Plans, format: PictureFormat) -> Result<(), Failure> {
    match format {
        PictureFormat::Json => output::json(&document(plans)?),
        PictureFormat::Text => output::text(&text(machine, plans)),
        PictureFormat::Svg => output::text(&pinion_map::svg(machine, &view(machine, plans))),
    }
}

fn document(plans: &Plans) -> Result<Value, Failure> {
    let mut items = plans.answers.iter().map(|answer| match answer {
        Ok(placement) => output::value("Placement", placement),
        Err(refusal) => output::value("Refusal", refusal),
    });
    if plans.answers.len() == 1 {
        return items.next().unwrap_or_else(|| Ok(Value::Null));
    }
    let items: Vec<Value> = items.collect::<Result<_, _>>()?;
    Ok(json!({ "apiVersion": output::API_VERSION, "kind": "List", "items": items }))
}

fn text(machine: &Machine, plans: &Plans) -> String {
    let mut text: String =
        plans.answers.iter().map(|answer| answer.as_ref().map_or_else(explain, summary) + "\n").collect();
    text.push_str(&huge_pages::words(&plans.pages));
    if plans.answers.iter().any(Result::is_ok) {
        text.push_str(&pinion_map::text(machine, &view(machine, plans), output::style()));
    }
    text
}

fn view(machine: &Machine, plans: &Plans) -> View {
    let view = View::of(machine, &plans.after);
    plans.answers.iter().flatten().fold(view, |view, placement| view.with_placement(placement))
}
