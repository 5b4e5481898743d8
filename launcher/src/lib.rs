//! One process per guest: arm, verify, run.

#![forbid(unsafe_code)]

pub mod certificate;
