//! The last step: a spec that passes the checks of every spec.
//!
//! What is not implemented is left out and noted, so that the importer gives it as soon as it is. What is wrong is a
//! fault.

use pinion_api::{Problem, ProblemCode, Segment, VirtualMachineInstance, parse};
use serde_json::Value;

use super::Fault;
use super::source::Record;

/// Most rounds: to leave a field out may show another problem behind it.
const ROUNDS: usize = 8;
/// How messages end that tell people to do what is done here.
const REMEDIES: [&str; 3] = ["; remove it", ", or remove it", "; add present: false"];

/// The spec without what is not implemented.
pub(super) fn settle(
    instance: &VirtualMachineInstance,
    record: &Record,
) -> Result<VirtualMachineInstance, Vec<Fault>> {
    let mut spec = serde_json::to_value(instance).unwrap_or_default();
    let mut faults = Vec::new();
    for _ in 0..ROUNDS {
        let Err(problems) = parse(spec.to_string()) else {
            return Ok(serde_json::from_value(spec).unwrap_or_default());
        };
        let mut changed = false;
        faults.clear();
        for problem in &problems {
            let path = problem.path.to_string();
            let origin = record.origin(&path);
            let is_left_out = matches!(problem.code, ProblemCode::Planned | ProblemCode::Refused);
            if is_left_out && leave_out(&mut spec, problem.path.segments()) {
                changed = true;
                record.note_origin(origin, format!("{path} is left out: {}", message(problem)));
            } else {
                faults.push(Fault::Refused {
                    path: origin.path,
                    field: path,
                    message: problem.message.clone(),
                });
            }
        }
        if !changed {
            break;
        }
    }
    Err(faults)
}

fn message(problem: &Problem) -> String {
    REMEDIES.iter().fold(problem.message.clone(), |text, remedy| {
        text.strip_suffix(remedy).map_or_else(|| text.clone(), str::to_owned)
    })
}

/// Takes a field out, and what is above it as far as nothing else is there. Items of lists stay, so that paths stay true.
fn leave_out(value: &mut Value, path: &[Segment]) -> bool {
    match (path, value) {
        ([Segment::Name(name)], Value::Object(fields)) => fields.remove(name).is_some(),
        ([Segment::Name(name), rest @ ..], Value::Object(fields)) => {
            let Some(below) = fields.get_mut(name) else { return false };
            let done = leave_out(below, rest);
            if done && below.as_object().is_some_and(serde_json::Map::is_empty) {
                fields.remove(name);
            }
            done
        }
        ([Segment::Index(index), rest @ ..], Value::Array(items)) => {
            items.get_mut(*index).is_some_and(|item| leave_out(item, rest))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pinion_api::FieldPath;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_above_goes_too_where_it_is_empty() {
        let mut value = json!({"a": {"b": {"c": 1}, "d": [{"e": {"f": 1}}]}});
        let path = |text: &str| FieldPath::root().field(text);
        assert!(leave_out(&mut value, path("a.b.c").segments()));
        assert!(leave_out(&mut value, path("a.d").index(0).field("e.f").segments()));
        assert!(!leave_out(&mut value, path("a.x.y").segments()));
        assert_eq!(value, json!({"a": {"d": [{}]}}));
    }
}
