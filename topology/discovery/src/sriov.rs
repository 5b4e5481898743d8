//! A function's part in SR-IOV.

use pinion_machine::{Bdf, Sriov};

use crate::tree::{Tree, TreeError};

/// `None` for a function without any part.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn of(tree: &Tree, folder: &str) -> Result<Option<Sriov>, TreeError> {
    let named = |link: &str| tree.link_name(&format!("{folder}/{link}"))?.parse::<Bdf>().ok();
    if let Some(parent) = named("physfn") {
        return Ok(Some(Sriov::Virtual { parent }));
    }
    let most = tree.parse::<u16>(&format!("{folder}/sriov_totalvfs"), "a number of virtual functions")?;
    let Some(most) = most.filter(|most| *most > 0) else { return Ok(None) };
    let numbers = tree.numbered(folder, "virtfn")?;
    let mut functions: Vec<Bdf> = numbers.iter().filter_map(|n| named(&format!("virtfn{n}"))).collect();
    functions.sort_unstable();
    Ok(Some(Sriov::Physical { most, functions }))
}
