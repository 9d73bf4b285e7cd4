//! The checkpoint and the layers selected in it.

use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::layers::Layers;

/// The checkpoint and the layers selected in it.
#[derive(Debug)]
pub(crate) struct Model {
    /// The checkpoint.
    pub(crate) checkpoint: Checkpoint,
    /// Its layers.
    pub(crate) layers: Layers,
}

impl Model {
    /// Opens what `--checkpoint` names.
    ///
    /// # Errors
    /// [`Fatal`] for a checkpoint that cannot serve.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, Fatal> {
        let Some(path) = &settings.weights.checkpoint else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open(path)?;
        let layers = Layers::select(&checkpoint, settings)?;
        Ok(Some(Self { checkpoint, layers }))
    }

    /// The solver of its layers.
    #[must_use]
    pub(crate) const fn solver<'a>(
        &'a self,
        settings: &'a Settings,
        cores: &'a Cores,
    ) -> SiteSolver<'a> {
        SiteSolver {
            checkpoint: &self.checkpoint,
            settings,
            layers: self.layers.selected.as_slice(),
            host: Compute {
                kernel: settings.compute.kernel,
                cores,
            },
        }
    }
}
