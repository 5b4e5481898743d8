//! The files below `/proc` that say where interrupts may come, and where they do.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pinion_machine::CpuSet;

use crate::mask;
use crate::table::Table;

/// What has an affinity of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// Where interrupts may come that are made from now on.
    Default,
    /// An interrupt, by its number.
    Number(u32),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default of new interrupts"),
            Self::Number(irq) => write!(f, "interrupt {irq}"),
        }
    }
}

impl Line {
    /// Its file below `/proc`.
    #[must_use]
    pub fn file(self) -> PathBuf {
        match self {
            Self::Default => "irq/default_smp_affinity".into(),
            Self::Number(irq) => format!("irq/{irq}/smp_affinity_list").into(),
        }
    }

    /// CPUs as its file takes them.
    #[must_use]
    pub fn text(self, cpus: &CpuSet) -> String {
        match self {
            Self::Default => mask::format(cpus),
            Self::Number(_) => cpus.to_string(),
        }
    }

    /// CPUs as its file has them; `None` where it is no such text.
    #[must_use]
    pub fn cpus(self, text: &str) -> Option<CpuSet> {
        match self {
            Self::Default => mask::parse(text),
            Self::Number(_) => CpuSet::from_str(text.trim()).ok(),
        }
    }
}

/// Where an interrupt may come, and where the kernel has it come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// `smp_affinity_list`.
    pub allowed: CpuSet,
    /// `effective_affinity_list`; the allowed ones where the kernel does not say.
    pub effective: CpuSet,
}

/// The files; below another folder in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IrqFiles {
    proc: PathBuf,
}

impl Default for IrqFiles {
    fn default() -> Self {
        Self::below(Path::new("/proc"))
    }
}

impl IrqFiles {
    /// The files below another folder than `/proc`.
    #[must_use]
    pub fn below(proc: &Path) -> Self {
        Self { proc: proc.to_owned() }
    }

    /// Where a line's file is.
    #[must_use]
    pub fn path(&self, line: Line) -> PathBuf {
        self.proc.join(line.file())
    }

    /// The numbers of all interrupts, ascending.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn numbers(&self) -> io::Result<Vec<u32>> {
        let entries = fs::read_dir(self.proc.join("irq"))?.flatten();
        let mut numbers: Vec<u32> =
            entries.filter_map(|e| e.file_name().to_str().and_then(|name| name.parse().ok())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The lines of `/proc/interrupts` that are wanted, by number and text.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn table(&self, wanted: impl Fn(u32, &str) -> bool) -> io::Result<Table> {
        Ok(Table::parse_where(&fs::read_to_string(self.proc.join("interrupts"))?, wanted))
    }

    /// The interrupts that VFIO drives, and those that share a line with one.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn passed_through(&self) -> io::Result<Table> {
        self.table(|_, line| line.contains("vfio-"))
    }

    /// Where an interrupt may come and does.
    ///
    /// # Errors
    /// As the kernel says; an interrupt that was given up meanwhile is not found.
    pub fn affinity(&self, irq: u32) -> io::Result<Affinity> {
        let allowed = list(&fs::read_to_string(self.path(Line::Number(irq)))?)?;
        let effective = self.proc.join(format!("irq/{irq}/effective_affinity_list"));
        let effective = fs::read_to_string(effective).ok().and_then(|text| list(&text).ok());
        let effective = effective.filter(|e| !e.is_empty()).unwrap_or_else(|| allowed.clone());
        Ok(Affinity { allowed, effective })
    }
}

fn list(text: &str) -> io::Result<CpuSet> {
    CpuSet::from_str(text.trim()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_are_read_and_written_as_the_kernel_has_them() {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("irq/40");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("smp_affinity_list"), "0-3\n").unwrap();
        let files = IrqFiles::below(proc.path());
        let all: CpuSet = "0-3".parse().unwrap();
        assert_eq!(files.affinity(40).unwrap(), Affinity { allowed: all.clone(), effective: all.clone() });
        fs::write(folder.join("effective_affinity_list"), "2\n").unwrap();
        assert_eq!(files.affinity(40).unwrap().effective.to_string(), "2");
        assert_eq!(files.numbers().unwrap(), [40]);
        assert_eq!(files.affinity(41).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Line::Default.text(&all), "f");
        assert_eq!(Line::Default.cpus("0000000f\n"), Some(all.clone()));
        assert_eq!(Line::Number(1).cpus(&Line::Number(1).text(&all)), Some(all));
    }
}
