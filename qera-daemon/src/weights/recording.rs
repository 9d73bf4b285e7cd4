//! What is known of the model in which the rows were recorded: how its names are related to the
//! checkpoint's, which of its modules are linear layers, which class it is. Fixed by the first
//! listing that accepts a shard, and part of the state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::settings::name_map::NameMap;
use crate::weights::gguf::family::is_gguf_name;
use crate::weights::linears::Linears;

/// The recorded model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// What the recorded names are in the checkpoint; none where no checkpoint was there, and all
    /// names are the recorded ones.
    pub(crate) names: Option<NameMap>,
    /// Recorded names that the map does not lead back to, by their names in the checkpoint.
    #[serde(default)]
    odd: BTreeMap<String, String>,
    /// Its linear layers, by their names in the checkpoint.
    pub(crate) linears: Linears,
    /// `qera.class`: whose names the recorded ones are.
    pub(crate) class: Option<String>,
    /// `qera.task_type`.
    pub(crate) task_type: Option<String>,
}

impl Recording {
    /// One of which only the names are known.
    #[must_use]
    pub(crate) fn under(names: Option<NameMap>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Learns that a module was recorded; returns its name in the checkpoint.
    pub(crate) fn learn(&mut self, recorded: &str) -> String {
        let module = self.name(recorded);
        let bare = match &self.names {
            Some(names) => names.bare(recorded),
            None => recorded,
        };
        if self.recorded_name(&module) != bare {
            let bare = bare.to_owned();
            self.odd.insert(module.clone(), bare);
        }
        module
    }

    /// The recorded name of a module of the checkpoint.
    #[must_use]
    pub(crate) fn recorded_name(&self, module: &str) -> String {
        if let Some(recorded) = self.odd.get(module) {
            return recorded.clone();
        }
        let names = self.names.as_ref();
        names.map_or_else(|| module.to_owned(), |names| names.undo(module))
    }

    /// Whether its names are a GGUF's, and so those of no class.
    #[must_use]
    pub(crate) fn has_gguf_names(&self) -> bool {
        let mut linears = self.linears.all();
        linears.any(|module| is_gguf_name(&self.recorded_name(module)))
    }

    /// The checkpoint's name of a recorded module.
    #[must_use]
    pub(crate) fn name(&self, recorded: &str) -> String {
        let names = self.names.as_ref();
        names.map_or_else(|| recorded.to_owned(), |names| names.apply(recorded))
    }

    /// What was gathered without a checkpoint, under the names of one.
    #[must_use]
    pub(crate) fn named_by(&self, names: NameMap) -> Self {
        let mut named = Self {
            linears: self.linears.renamed(&names),
            names: Some(names),
            ..self.clone()
        };
        for recorded in self.linears.all() {
            named.learn(recorded);
        }
        named
    }
}
