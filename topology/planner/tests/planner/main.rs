//! The planner from outside: its written rules, its properties, its JSON.

mod exhaustive;
mod judge;
mod properties;
mod requests;
mod rules;
mod worlds;
