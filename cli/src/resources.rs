//! What the device names of a spec stand for on this host.
//!
//! Called while a spec is planned. Reads the file of names and the machine; changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pinion_api::VirtualMachineInstance;
use pinion_device_plugin::Offer;
use pinion_machine::{Bdf, Binding, Machine, binding, obstacles};
use pinion_planner::Request;
use pinion_resources::{DEFAULT_PATH, MAX_BYTES, Resources};

use crate::failure::Failure;

/// What is wanted of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That it can be passed through: binding it comes later.
    Assignable,
    /// That it is bound to vfio-pci already.
    Bound,
}

/// The file of names.
#[derive(Debug, Default)]
pub(crate) struct DeviceNames {
    path: PathBuf,
    resources: Resources,
}

#[derive(Debug, thiserror::Error)]
enum NamesError {
    #[error("Cannot read {0:?}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{path:?}: {}", problems.join("\n  "))]
    Wrong { path: PathBuf, problems: Vec<String> },
    #[error("{field}: no device known as {name:?} can be given to the guest: {}", why.join("; "))]
    NoneLeft { field: String, name: String, why: Vec<String> },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\npinion: "))]
    Several(Vec<NamesError>),
    #[error(
        "{field}: {name:?} stands for mediated devices, which a guest of this host cannot have: name a whole function or a \
         virtual one"
    )]
    Mediated { field: String, name: String },
    #[error("{field}: {name:?} stands for no device of this machine: see {path:?} and `pinion devices`")]
    NoneFound { field: String, name: String, path: PathBuf },
}

impl DeviceNames {
    /// Reads the file that was named, or the default one where there is one.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when it is wrong.
    pub(crate) fn read(given: Option<&Path>) -> Result<Self, Failure> {
        let path = given.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        if given.is_none() && !path.exists() {
            return Ok(Self { path, resources: Resources::default() });
        }
        let failed = |e| Failure::invalid(NamesError::Read(path.clone(), e));
        let mut text = String::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        match Resources::parse(&text) {
            Ok(resources) => Ok(Self { path, resources }),
            Err(problems) => {
                let problems = problems.iter().map(ToString::to_string).collect();
                Err(Failure::invalid(NamesError::Wrong { path, problems }))
            }
        }
    }

    /// What the names stand for on this machine, and what of it can be given.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when a device has two names.
    pub(crate) fn offer(&self, machine: &Machine) -> Result<Offer, Failure> {
        self.unambiguous(machine).map_err(Failure::invalid)?;
        Ok(Offer::new(machine, &self.resources))
    }

    fn unambiguous(&self, machine: &Machine) -> Result<(), NamesError> {
        let conflicts = self.resources.conflicts(machine);
        if conflicts.is_empty() {
            return Ok(());
        }
        let problems = conflicts.iter().map(ToString::to_string).collect();
        Err(NamesError::Wrong { path: self.path.clone(), problems })
    }

    /// What a VM needs, its devices included.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when a device name means nothing here, or nothing that a guest can have.
    pub(crate) fn request(
        &self,
        machine: &Machine,
        instance: &VirtualMachineInstance,
        wanted: Wanted,
    ) -> Result<Request, Failure> {
        let wanted = |name: &str| if self.resources.binds(name) { Wanted::Assignable } else { wanted };
        let problem = |device: pinion_api::PassedThrough<'_>| {
            let name = device.device_name?;
            self.check(machine, device.field, name, wanted(name)).err()
        };
        let problems: Vec<NamesError> =
            instance.spec.passed_through().into_iter().filter_map(problem).collect();
        if !problems.is_empty() {
            return Err(Failure::invalid(NamesError::Several(problems)));
        }
        let usable = |name: &str| {
            let all = self.resources.functions(name, machine)?;
            let wanted = wanted(name);
            Some(all.into_iter().filter(|f| why_not(machine, *f, wanted).is_none()).collect::<Vec<Bdf>>())
        };
        Request::from_instance(instance, &usable).map_err(Failure::invalid)
    }

    fn check(&self, machine: &Machine, field: String, name: &str, wanted: Wanted) -> Result<(), NamesError> {
        self.unambiguous(machine)?;
        let name = name.to_owned();
        if self.resources.mediated(&name, machine).is_some_and(|found| !found.is_empty()) {
            return Err(NamesError::Mediated { field, name });
        }
        let Some(functions) = self.resources.functions(&name, machine).filter(|f| !f.is_empty()) else {
            return Err(NamesError::NoneFound { field, name, path: self.path.clone() });
        };
        let why: Vec<Option<String>> = functions.iter().map(|f| why_not(machine, *f, wanted)).collect();
        match why.into_iter().collect::<Option<Vec<String>>>() {
            Some(why) => Err(NamesError::NoneLeft { field, name, why }),
            None => Ok(()),
        }
    }
}

/// What stands in the way of giving a guest this device.
fn why_not(machine: &Machine, address: Bdf, wanted: Wanted) -> Option<String> {
    let first = obstacles(machine, address).into_iter().next();
    if let Some(obstacle) = first {
        return Some(format!("{address}: {obstacle} ({})", obstacle.remedy()));
    }
    match binding(machine, address) {
        Binding::Unbound { members } if wanted == Wanted::Bound => {
            let of = |(member, driver): &(Bdf, Option<String>)| match driver {
                Some(driver) => format!("{member} has the driver {driver}"),
                None => format!("{member} has no driver"),
            };
            let members: Vec<String> = members.iter().map(of).collect();
            Some(format!(
                "{address}: its group is not bound to vfio-pci: {} (`pinion devices bind {address}`)",
                members.join(", ")
            ))
        }
        _ => None,
    }
}
