//! The rules of the workspace that a program can check (ARCHITECTURE.md states them; clippy and
//! rustc hold the others).
//!
//! Each rule lists its findings with their place, so that a failure reads as what to change.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod circles;
mod comments;
mod crates;
mod design_pages;
mod documents;
mod doors;
mod examples;
mod floors;
mod graph;
mod leftovers;
mod method;
mod names;
mod options_page;
mod page_commands;
mod signatures;
mod sizes;
mod sources;
mod spelled;
mod surface;
mod syntax;
mod type_names;
mod unsafety;
