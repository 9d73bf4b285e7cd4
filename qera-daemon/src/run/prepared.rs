//! What is known before a row is read: checkpoint, layers, sites, the shards that are there, and what it will all need.

use crate::calibrate::aside::scored_share;
use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::observe::status::{LayerStatus, Status};
use crate::plan::{Extent, Plan};
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::admission::{Admission, Admitted};
use crate::source::grouping::{RefusedShard, group};
use crate::source::intake::Intake;
use crate::state::progress_file::LayerSize;
use crate::state::restore::{Asked, Expected, SiteState, check_sites};
use crate::state::{SitesRecord, read_sites};
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// Sites, shards and plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The sites.
    pub(crate) sites: Sites,
    /// Whether they are those of a state, and how many that names.
    pub(crate) saved: Option<SitesRecord>,
    /// Whether R is gathered.
    pub(crate) keeps_r: bool,
    /// What it will need.
    pub(crate) plan: Plan,
    /// Shards whose headers fit.
    pub(crate) admitted: Vec<Admitted>,
    /// Shards that were set aside, with their reasons.
    pub(crate) refused: Vec<String>,
    /// Visible files that are no shards.
    pub(crate) ignored_files: usize,
}

impl Prepared {
    /// Takes the sites from the state where there is one, and else groups the layers by what the shards in the folder
    /// declare.
    ///
    /// # Errors
    /// [`Fatal`] for a folder or state that cannot serve; a bad shard is only counted.
    pub(crate) fn prepare(
        settings: &Settings,
        weights: Option<&Weights>,
        mut intake: Option<&mut Intake>,
    ) -> Result<Self, Fatal> {
        let needs_r = settings.solve.method.needs_r();
        let saved = read_sites(&settings.state)?;
        let layers = weights.map_or(&[][..], Weights::layers);
        let mut refused = Vec::new();
        let (mut headers, mut ignored_files) = (Vec::new(), 0);
        if let Some(intake) = &mut intake {
            let scan = intake.scan()?;
            refused.extend(scan.refused.iter().map(ToString::to_string));
            headers = scan.ready;
            ignored_files = scan.ignored;
        }
        let (sites, admitted) = match &saved {
            Some(record) => {
                let asked = Asked {
                    needs_r,
                    continues: intake.is_some(),
                };
                let sites = continued(settings, weights, record, asked)?;
                let admission = Admission {
                    weights,
                    selection: &settings.weights.selection,
                    sites: &sites,
                };
                let fits = headers.iter().filter_map(|h| admission.admit(h).ok());
                let admitted: Vec<_> = fits.collect();
                (sites, admitted)
            }
            None => {
                let grouping = group(settings, weights, headers)?;
                for RefusedShard { header, refusal } in grouping.refused {
                    refused.push(refusal.to_string());
                    if let Some(intake) = &mut intake {
                        intake.done_with(header.file_name(), header.identity());
                    }
                }
                (grouping.sites, grouping.admitted)
            }
        };
        refused.sort();
        // Once begun, R goes on being gathered, also for a method that does without.
        let keeps_r = saved.as_ref().map_or(needs_r, |saved| saved.keeps_r);
        let extent = Extent {
            keeps_r,
            resumed: saved.is_some(),
            ..Extent::new(settings)
        };
        let plan = Plan::new(settings, layers, &sites, &admitted, extent);
        Ok(Self {
            sites,
            saved,
            keeps_r,
            plan,
            admitted,
            refused,
            ignored_files,
        })
    }

    /// For `plan`: what a run would need, and which shards it would set aside.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    pub(crate) fn plan(settings: &Settings) -> Result<Self, Fatal> {
        let weights = Weights::open(settings)?;
        let mut intake = settings
            .source
            .watch
            .as_ref()
            .map(|w| Intake::new(w, false));
        Self::prepare(settings, weights.as_ref(), intake.as_mut())
    }

    /// How the state's sites are to be read.
    #[must_use]
    pub(crate) fn expected<'a>(
        &'a self,
        layers: &[Layer],
        solved_for: Option<&'a str>,
    ) -> Expected<'a> {
        let of_site = |members: &[usize]| {
            let sizes = members.iter().map(|&l| &layers[l]);
            sizes.map(LayerSize::of).collect()
        };
        Expected {
            sites: &self.sites,
            keeps_r: self.keeps_r,
            solved_for,
            layers: self
                .sites
                .sites
                .iter()
                .map(|s| of_site(&s.layers))
                .collect(),
            scored_shares: self.scored_shares(layers),
        }
    }

    /// Rows kept aside, by site: none where nothing is solved.
    #[must_use]
    pub(crate) fn scored_shares(&self, layers: &[Layer]) -> Vec<f64> {
        let share = |site: &Site| {
            let sizes = site.layers.iter().map(|&l| &layers[l]);
            if site.layers.is_empty() {
                return 0.0;
            }
            scored_share(site.in_features, sizes.map(|l| (l.out_features, l.rank)))
        };
        self.sites.sites.iter().map(share).collect()
    }

    /// What `status` shows before the first row of this run.
    #[must_use]
    pub(crate) fn status(
        &self,
        settings: &Settings,
        layers: &[Layer],
        restored: &[Option<SiteState>],
    ) -> Status {
        let absolute = |path: &std::path::Path| {
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
            path.display().to_string()
        };
        let before = Status::read(&settings.state).unwrap_or_default();
        let known = |name: &str| before.layers.iter().find(|l| l.name == name);
        let mut status = Status {
            generation: before.generation,
            pid: std::process::id(),
            phase: "folding".into(),
            watch: settings.source.watch.as_deref().map(absolute),
            out: settings
                .weights
                .checkpoint
                .as_ref()
                .map(|_| absolute(&settings.publish.out)),
            quarantined: self.refused.len(),
            reasons: self.refused.clone(),
            layers: layers
                .iter()
                .map(|layer| LayerStatus {
                    name: layer.name.clone(),
                    ..known(&layer.name).cloned().unwrap_or_default()
                })
                .collect(),
            ..Status::default()
        };
        for (index, site) in self.sites.sites.iter().enumerate() {
            let saved = restored.get(index).and_then(Option::as_ref);
            let (rows, rows_skipped) = saved.map_or((0, 0), |state| {
                (state.statistics.rows, state.statistics.rows_skipped)
            });
            if layers.is_empty() {
                status.gather(index, &site.name, rows);
            }
            let progress = saved.and_then(|state| state.progress.as_ref());
            let summaries = progress.map(|p| p.summaries(settings.convergence.tolerance));
            for (member, &layer) in site.layers.iter().enumerate() {
                let summary = summaries.as_ref().map(|of_site| of_site[member]);
                let shown = &mut status.layers[layer];
                shown.rows = rows;
                shown.rows_skipped = rows_skipped;
                shown.evidence = summary.and_then(|s| s.evidence);
                shown.status = match summary {
                    Some(summary) if summary.status() != "solved" => summary.status(),
                    _ if rows == 0 => "starved",
                    _ if shown.rows_solved > 0 => "solved",
                    _ => "waiting",
                }
                .into();
            }
        }
        status
    }
}

/// The sites of a state, with the layers of today.
fn continued(
    settings: &Settings,
    weights: Option<&Weights>,
    record: &SitesRecord,
    asked: Asked,
) -> Result<Sites, Fatal> {
    let sites = match weights {
        None => Sites::saved(&record.sites, &record.shares),
        Some(weights) => weights.sites(&record.shares)?,
    };
    check_sites(&settings.state, record, &sites, asked)?;
    Ok(sites)
}

/// The solver of the layers.
#[must_use]
pub(crate) const fn solver<'a>(
    settings: &'a Settings,
    weights: &'a Weights,
    cores: &'a Cores,
) -> SiteSolver<'a> {
    SiteSolver {
        weights,
        settings,
        host: Compute {
            kernel: settings.compute.kernel,
            cores,
        },
    }
}
