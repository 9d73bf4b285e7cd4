//! `verify`: checks an adapter's files against the model that it is served on, and sends recorded
//! rows through both.

use std::path::PathBuf;

use serde_json::Value;

use crate::commands::print;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::publish::check::{HeldAgainst, check, served_base};
use crate::replay::replay;
use crate::replay::report::ReplayReport;
use crate::settings::replay::ReplaySettings;

/// The folder to verify, and what to verify it against.
#[derive(Debug)]
pub(crate) struct Verification {
    /// The adapter.
    pub(crate) adapter: PathBuf,
    /// The model that it is served on; it is searched for where it is not given.
    pub(crate) base: Option<PathBuf>,
    /// The rows that are replayed, if any.
    pub(crate) replay: Option<ReplaySettings>,
    /// Whether the result is printed as JSON.
    pub(crate) json: bool,
}

/// Prints what is wrong with an adapter's files, and what recorded rows show. The exit code says
/// whether anything is wrong.
///
/// # Errors
/// [`Fatal::Io`]; [`Fatal::Usage`] for a replay.
pub(crate) fn verify(of: &Verification) -> Result<Exit, Fatal> {
    let base = of.base.as_deref();
    let against = base.map_or(HeldAgainst::Named, HeldAgainst::Folder);
    let mut findings = check(&of.adapter, against);
    let mut reports = Vec::new();
    if let Some(replayed) = &of.replay {
        let named = of
            .base
            .clone()
            .map_or_else(|| served_base(&of.adapter), |of| Ok(Some(of)));
        let replayed = named.and_then(|base| match base {
            Some(base) => replay(&of.adapter, &base, replayed, &mut findings),
            None => {
                findings.problem("replay: no base is known: --base names it".into());
                Ok(Vec::new())
            }
        });
        // What was found before is printed in any case.
        match replayed {
            Ok(replayed) => reports = replayed,
            Err(fatal @ Fatal::Usage(_)) => return Err(fatal),
            Err(fatal) => findings.problem(format!("replay: {fatal}")),
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
