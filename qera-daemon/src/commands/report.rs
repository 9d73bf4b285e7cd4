//! `report`: the current generation as a page or as a short table.

use std::path::{Path, PathBuf};

use crate::commands::print;
use crate::disk;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::report::folder::ReportedFolder;
use crate::report::page::page;
use crate::report::standing::{AskedState, ReportedState};
use crate::report::table::table;

/// The folder to report on, and the file to write to.
#[derive(Debug)]
pub(crate) struct ReportOrder<'a> {
    /// The output folder.
    pub(crate) out: &'a Path,
    /// The state that its generations were solved from.
    pub(crate) state: AskedState<'a>,
    /// The page's file; without one a table is printed.
    pub(crate) html: Option<PathBuf>,
}

/// Writes the page, or prints the table. Neither the output folder nor the state is locked, so that
/// a daemon may work with both.
///
/// # Errors
/// [`Fatal::StateRefused`] where there is no generation, its manifest is damaged, or the state
/// belongs to another one; [`Fatal::Io`].
pub(crate) fn report(of: &ReportOrder<'_>) -> Result<Exit, Fatal> {
    let folder = ReportedFolder::read(of.out)?;
    let state = ReportedState::read(of.state, &folder.current)?;
    let Some(file) = &of.html else {
        return print(&table(&folder, state.as_ref()));
    };
    let page = page(&folder, state.as_ref())
        .map_err(|e| Fatal::io(file, "write")(std::io::Error::other(e)))?;
    disk::replace(file, page.as_bytes())?;
    print(&format!(
        "{}: {} kB\n",
        file.display(),
        page.len().div_ceil(1000)
    ))
}
