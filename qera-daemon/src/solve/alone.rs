//! Solves one site of a checkpoint from statistics, without a run around it: tests hold this
//! against oracles.

use std::collections::BTreeSet;
use std::path::Path;

use crate::calibrate::site::SiteStatistics;
use crate::host::compute::Compute;
use crate::judge::held_out::Choice;
use crate::judge::scores::HeldOut;
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::solve::solution::{FailedLayer, SolvedSite};
use crate::weights::opening::Model;
use crate::weights::recording::Recording;
use crate::weights::sites::Shares;

/// A checkpoint whose layers all share one input, and the statistics of that input.
#[derive(Debug, Clone, Copy)]
pub struct SiteProblem<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Path,
    /// Options as a settings file has them.
    pub options: &'a str,
    /// The statistics.
    pub statistics: &'a SiteStatistics,
}

/// The solution of one layer. Errors are f = tr(R P P^T), the mean squared output error of a row.
#[derive(Debug, Clone)]
pub struct SolvedLayer {
    /// Module path.
    pub name: String,
    /// Rank really used: at most the numerical rank of the problem.
    pub rank_used: usize,
    /// tr(R W W^T).
    pub output_power: f64,
    /// f without correction.
    pub error_without: f64,
    /// f with the correction, before rounding.
    pub error_with: f64,
    /// The relative uncertainty of `error_with` that follows from R's; `None` below 1e-6.
    pub uncertainty: Option<f64>,
    /// f of the factors as they are written.
    pub error_written: f64,
    /// The type in which the factors are written.
    pub dtype: &'static str,
    /// A^T as it is written, rank x in_features by rows.
    pub lora_a: Vec<f32>,
    /// B^T as it is written, out_features x rank by rows.
    pub lora_b: Vec<f32>,
    /// Eigenvalues of G that the method captured, largest first.
    pub spectrum: Vec<f64>,
    /// The shrinkage, where the method is QERA-exact.
    pub choice: Option<Choice>,
    /// Error on held-out rows.
    pub held_out: Option<HeldOut>,
}

impl SiteProblem<'_> {
    /// Solves every layer of the site, cold.
    ///
    /// # Errors
    /// As for a run: a wrong option, a checkpoint that cannot serve, products that overflow. Here
    /// also where the layers do not all read one input.
    pub fn solve(
        &self,
        compute: Compute<'_>,
    ) -> Result<Vec<SolvedLayer>, Box<dyn core::error::Error + Send + Sync>> {
        let mut settings = Settings::from_toml(self.options)?;
        settings.weights.checkpoint = Some(self.checkpoint.to_path_buf());
        let Some(model) = Model::open(&settings)? else {
            return Err("there is no checkpoint".into());
        };
        let mut recording = Recording::default();
        let modules: BTreeSet<String> = model.modules().map(str::to_owned).collect();
        let layers = modules.iter().filter(|name| {
            let shape = model.shape(name);
            shape.is_some_and(|shape| shape.len() == 2)
        });
        layers.for_each(|name| recording.linears.see(name.clone()));
        let weights = model.select(&settings, &recording)?;
        let mut shares = Shares::default();
        let one = weights.layers().iter().map(|layer| layer.name.clone());
        // The first word of shares clashes with no other.
        let _ = shares.join(&one.collect());
        let sites = weights.sites(&shares, self.statistics.second_moment.kind())?;
        let [site] = &sites.sites[..] else {
            return Err(format!("{} inputs, not one", sites.sites.len()).into());
        };
        if self.statistics.rows == 0 {
            return Err("no row has been seen".into());
        }
        let solver = SiteSolver {
            weights: &weights,
            settings: &settings,
            compute,
            accelerator: None,
        };
        weights.keep_rounded_in_memory();
        solver.freeze(site, self.statistics, 0)?;
        let SolvedSite {
            solutions, failed, ..
        } = solver.solve(site, self.statistics, None)?;
        if let Some(FailedLayer { reason, .. }) = failed.into_iter().next() {
            return Err(reason.into());
        }
        let solved = solutions.into_iter().map(|solution| SolvedLayer {
            name: weights.layers()[solution.layer].name.clone(),
            rank_used: solution.rank_used,
            output_power: solution.output_power,
            error_without: solution.error_without,
            error_with: solution.error_with,
            uncertainty: solution.uncertainty(),
            error_written: solution.factors.error,
            dtype: solution.factors.dtype.name(),
            lora_a: solution.factors.lora_a,
            lora_b: solution.factors.lora_b,
            spectrum: solution.spectrum,
            choice: solution.choice,
            held_out: solution.held_out,
        });
        Ok(solved.collect())
    }
}
