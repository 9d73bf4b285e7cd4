//! The state beside the manifest: what is going on, and how far each layer is by now.

use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::presence::exists;
use crate::error::Fatal;
use crate::observe::reporter::printable;
use crate::observe::status::{LayerStatus, Status};
use crate::report::figures::count;
use crate::report::generation::ReportedGeneration;
use crate::state::read_identity;

/// The present condition of the state that a generation was solved from.
#[derive(Debug)]
pub(crate) struct ReportedState {
    /// The state's status.
    pub(crate) status: Status,
    /// The index of each layer, by name.
    by_name: BTreeMap<String, usize>,
}

/// The state that is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedState<'a> {
    /// The state's folder.
    pub(crate) path: &'a Path,
    /// Whether the user named it. Then it must exist, and be the right one.
    pub(crate) is_named: bool,
}

impl ReportedState {
    /// Reads a state while a daemon may hold it. `None` where the user did not name it and it does
    /// not exist, or the generation was solved from another one.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] where the user named it and it holds no status or is another one;
    /// [`Fatal::Io`].
    pub(crate) fn read(
        of: AskedState<'_>,
        generation: &ReportedGeneration,
    ) -> Result<Option<Self>, Fatal> {
        let path = of.path;
        if !of.is_named && !exists(&path.join("status.json"))? {
            return Ok(None);
        }
        let status = Status::read(path)?;
        let identity = read_identity(path)?;
        let is_other = match (&identity, &generation.state) {
            (Some(here), Some(said)) => here != said,
            _ => false,
        };
        if is_other && of.is_named {
            let reason =
                "is not the state that the current generation was solved from: another --out, or \
                 another --state"
                    .into();
            let path = path.to_path_buf();
            return Err(Fatal::StateRefused { path, reason });
        }
        let names = status.layers.iter().map(|layer| layer.name.clone());
        let by_name = names.zip(0..).collect();
        Ok((!is_other).then_some(Self { status, by_name }))
    }

    /// The status of a layer.
    #[must_use]
    pub(crate) fn layer(&self, name: &str) -> Option<&LayerStatus> {
        self.status.layers.get(*self.by_name.get(name)?)
    }

    /// What happens in the state at present, in sentences.
    #[must_use]
    pub(crate) fn said(&self) -> Vec<String> {
        let status = &self.status;
        let mut said = vec![match status.running {
            true => format!("A daemon works with it: {}.", status.phase.name()),
            false => "No daemon works with it.".to_owned(),
        }];
        said.extend(status.waiting.as_ref().map(ToString::to_string));
        said.push(format!(
            "It holds {} shards; {} came twice, {} were set aside since the daemon was started, {} \
             were lost.",
            count(status.shards as u64),
            count(status.duplicates as u64),
            count(status.quarantined as u64),
            count(status.lost as u64),
        ));
        let mut standings = BTreeMap::new();
        for layer in &status.layers {
            *standings.entry(layer.status.name()).or_insert(0_usize) += 1;
        }
        let standings = standings
            .iter()
            .map(|(name, layers)| format!("{layers} {name}"));
        said.push(format!(
            "Layers: {}.",
            standings.collect::<Vec<_>>().join(", ")
        ));
        said.iter().map(|said| printable(said)).collect()
    }
}
