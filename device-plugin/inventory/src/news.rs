//! What operators and metrics are told of when the inventory has changed.

use std::fmt;

use pinion_device_plugin::{Catalogue, Health, Problem, Unit, UnitId};
use pinion_discovery::DiscoverError;

use crate::FileError;

/// Something new.
#[derive(Debug)]
pub enum News {
    /// The file of devices is not followed.
    File(FileError),
    /// The machine cannot be read; what was offered still is.
    Machine(DiscoverError),
    /// Something that is named is not offered.
    Problem(Problem),
    /// A device can be given now, or cannot any more.
    Health {
        /// Its resource.
        resource: String,
        /// Which.
        id: UnitId,
        /// How it is now.
        health: Health,
    },
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
            Self::Problem(problem) => problem.fmt(f),
            Self::Health { resource, id, health: Health::Healthy } => {
                write!(f, "{resource}: device {id} can be given")
            }
            Self::Health { resource, id, health: Health::Unhealthy(causes) } => {
                write!(f, "{resource}: device {id} cannot be given")?;
                for (number, cause) in causes.iter().enumerate() {
                    let before = if number == 0 { ": " } else { "; " };
                    write!(f, "{before}{cause} ({})", cause.remedy())?;
                }
                Ok(())
            }
        }
    }
}

/// What of the second was not so in the first. A device that is healthy from the start is no news.
pub(crate) fn between(before: &Catalogue, now: &Catalogue) -> Vec<News> {
    let problems = now.offer.problems.iter().filter(|p| !before.offer.problems.contains(p));
    let mut news: Vec<News> = problems.cloned().map(News::Problem).collect();
    for resource in &now.offer.resources {
        let earlier = before.offer.units(&resource.name).unwrap_or_default();
        let was =
            |unit: &Unit| earlier.iter().find(|u| u.id == unit.id).map_or(&Health::Healthy, |u| &u.health);
        let changed = resource.units.iter().filter(|unit| *was(unit) != unit.health);
        news.extend(changed.map(|unit| News::Health {
            resource: resource.name.clone(),
            id: unit.id,
            health: unit.health.clone(),
        }));
    }
    news
}

#[cfg(test)]
mod tests {
    use pinion_device_plugin::{Cause, Offer, Offered};

    use super::*;

    fn catalogue(health: &[Health]) -> Catalogue {
        let units = health.iter().zip(1..).map(|(health, number)| {
            let address = pinion_machine::Bdf::new(0, number, 0, 0).unwrap();
            let (id, functions) = (UnitId::Function(address), vec![address]);
            Unit { id, functions, parent: None, group: None, nodes: vec![], health: health.clone() }
        });
        let offered = Offered { name: "a.b/c".into(), units: units.collect() };
        Catalogue { offer: Offer { resources: vec![offered], problems: vec![] }, ..Catalogue::default() }
    }

    #[test]
    fn only_what_changes_is_news_and_says_what_to_do() {
        let gone = Health::Unhealthy(vec![Cause::Gone("02:00.0".parse().unwrap())]);
        let told = |before: &[Health], now: &[Health]| -> Vec<String> {
            between(&catalogue(before), &catalogue(now)).iter().map(ToString::to_string).collect()
        };
        let both = [Health::Healthy, Health::Healthy];
        let one = [Health::Healthy, gone];
        assert!(told(&[], &both).is_empty() && told(&both, &both).is_empty() && told(&one, &one).is_empty());
        let lost = "a.b/c: device 0000:02:00.0 cannot be given: 0000:02:00.0 is gone from the machine \
            (put the device back, or look in the kernel's log for why it left the bus)";
        assert_eq!(told(&both, &one), [lost]);
        assert_eq!(told(&[], &one), [lost]);
        assert_eq!(told(&one, &both), ["a.b/c: device 0000:02:00.0 can be given"]);
    }
}
