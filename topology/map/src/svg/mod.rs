//! The picture as SVG. (Placeholder until drawn below.)
use crate::View;
use pinion_machine::Machine;
pub(crate) fn draw(_machine: &Machine, _view: &View) -> String {
    String::new()
}
