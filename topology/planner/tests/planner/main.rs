//! The planner from outside: its written rules, its properties, its JSON.

mod requests;
mod rules;
