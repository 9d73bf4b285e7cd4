//! What is known of the model in which the rows were recorded: how its names relate to the
//! checkpoint's, which of its modules are linear layers, and its class. The first listing that
//! accepts a shard fixes this, and it is part of the state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::settings::name_map::NameMap;
use crate::weights::gguf::family::is_gguf_name;
use crate::weights::linears::Linears;

/// What is known about the model whose rows were recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// The map from recorded names to the checkpoint's; `None` where there was no checkpoint, so
    /// that all names are the recorded ones.
    pub(crate) names: Option<NameMap>,
    /// Recorded names that cannot be derived back through the map, by their names in the
    /// checkpoint.
    #[serde(default)]
    odd: BTreeMap<String, String>,
    /// The model's linear layers, by their names in the checkpoint.
    pub(crate) linears: Linears,
    /// `qera.class`: the class whose names were recorded.
    pub(crate) class: Option<String>,
    /// `qera.task_type`.
    pub(crate) task_type: Option<String>,
}

impl Recording {
    /// A recording of which only the names are known.
    #[must_use]
    pub(crate) fn under(names: Option<NameMap>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Notes that a module was recorded; returns its name in the checkpoint.
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

    /// Whether the names are those of a GGUF, and so of no class.
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

    /// The recording of what was gathered without a checkpoint, under the names of one.
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
