//! `verify`: an adapter's files held against the model that it is served on, and recorded rows
//! through both.

use std::path::PathBuf;

use serde_json::Value;

use crate::commands::print;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::publish::check::{HeldAgainst, check, served_base};
use crate::replay::replay;
use crate::replay::report::ReplayReport;
use crate::settings::replay::ReplaySettings;

/// What is verified.
#[derive(Debug)]
pub(crate) struct Verification {
    /// The adapter.
    pub(crate) adapter: PathBuf,
    /// The model that it is served on; found where it is not named.
    pub(crate) base: Option<PathBuf>,
    /// Rows that are replayed.
    pub(crate) replay: Option<ReplaySettings>,
    /// Whether it is told as JSON.
    pub(crate) json: bool,
}

/// Prints what is wrong with an adapter's files, and what recorded rows say of them; the exit code
/// says whether anything is wrong.
///
/// # Errors
/// [`Fatal::Io`]; [`Fatal::Usage`] of a replay.
pub(crate) fn verify(of: &Verification) -> Result<Exit, Fatal> {
    let base = of.base.as_deref();
    let against = base.map_or(HeldAgainst::Named, HeldAgainst::Folder);
    let mut findings = check(&of.adapter, against);
    let mut reports = Vec::new();
    if let Some(replayed) = &of.replay {
        match of.base.clone().or_else(|| served_base(&of.adapter)) {
            // What was found already is said in any case.
            Some(base) => match replay(&of.adapter, &base, replayed, &mut findings) {
                Ok(replayed) => reports = replayed,
                Err(fatal @ Fatal::Usage(_)) => return Err(fatal),
                Err(fatal) => findings.problem(format!("replay: {fatal}")),
            },
            None => findings.problem("replay: no base is known: --base names it".into()),
        }
    }
    print(&match of.json {
        true => {
            let mut said = findings.json();
            let replays: Vec<Value> = reports.iter().map(ReplayReport::json).collect();
            if of.replay.is_some() {
                said["replay"] = replays.into();
            }
            serde_json::to_string_pretty(&said).unwrap_or_default() + "\n"
        }
        false => {
            let replays = reports.iter().map(ReplayReport::text);
            replays.chain([findings.text()]).collect()
        }
    })?;
    Ok(match findings.holds() {
        true => Exit::Done,
        false => Exit::Failure,
    })
}
