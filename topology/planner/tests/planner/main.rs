//! The planner from outside: its written rules, its properties, its JSON.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken expectation fails the test")]

mod exhaustive;
mod golden;
mod judge;
mod properties;
mod requests;
mod rules;
mod size;
mod worlds;
