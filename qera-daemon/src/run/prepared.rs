//! What is known before a row is read: checkpoint, layers, sites, the shards that are there, and
//! what it will all need. Nothing is locked yet.

use core::sync::atomic::{AtomicBool, AtomicUsize};

use crate::calibrate::aside::{ScoredLayer, scored_share};
use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::observe::reporter::Reporter;
use crate::pipeline::context::{Context, Flags};
use crate::pipeline::ledger::Ledger;
use crate::plan::Plan;
use crate::plan::planned_run::{PlannedRun, Solving, Start};
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::admission::{Admission, Admitted};
use crate::source::grouping::{RefusedShard, group};
use crate::source::intake::{Intake, Scan};
use crate::source::shard::ShardHeader;
use crate::state::progress_file::LayerSize;
use crate::state::restore::{Asked, Expected, check_sites};
use crate::state::{SitesRecord, read_sites};
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// Sites, shards and plan.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The weights; none where statistics are only gathered.
    pub(crate) weights: Option<&'a Weights>,
    /// The sites.
    pub(crate) sites: Sites,
    /// Those of the state that is continued.
    pub(crate) saved: Option<SitesRecord>,
    /// What it will need.
    pub(crate) plan: Plan,
    /// Shards whose headers fit.
    pub(crate) admitted: Vec<Admitted>,
    /// Shards that were set aside, with their reasons.
    pub(crate) refused: Vec<String>,
    /// Visible files that are no shards.
    pub(crate) ignored_files: usize,
}

/// Sites, and the shards that fit them.
struct Grouped {
    sites: Sites,
    admitted: Vec<Admitted>,
}

impl<'a> Prepared<'a> {
    /// Takes the sites from the state where there is one, and else groups the layers by what the
    /// shards in the folder declare.
    ///
    /// # Errors
    /// [`Fatal`] for a folder or state that cannot serve; a bad shard is only counted.
    pub(crate) fn prepare(
        settings: &'a Settings,
        weights: Option<&'a Weights>,
        mut intake: Option<&mut Intake>,
    ) -> Result<Self, Fatal> {
        let saved = read_sites(&settings.state)?;
        let scan = match &mut intake {
            Some(intake) => intake.scan()?,
            None => Scan::default(),
        };
        let mut refused: Vec<String> = scan.refused.iter().map(ToString::to_string).collect();
        let Grouped { sites, admitted } = match &saved {
            Some(record) => continued(settings, weights, record, &scan.ready, intake.is_some())?,
            None => {
                let grouping = group(settings, weights, scan.ready)?;
                for RefusedShard { header, refusal } in grouping.refused {
                    refused.push(refusal.to_string());
                    if let Some(intake) = &mut intake {
                        intake.done_with(header.file_name(), header.identity());
                    }
                }
                Grouped {
                    sites: grouping.sites,
                    admitted: grouping.admitted,
                }
            }
        };
        refused.sort();
        let run = PlannedRun {
            settings,
            layers: weights.map_or(&[][..], Weights::layers),
            sites: &sites,
            shards: &admitted,
            solving: Solving::of(settings),
            start: match saved {
                Some(_) => Start::Continued,
                None => Start::Anew,
            },
        };
        let plan = Plan::new(&run);
        Ok(Self {
            settings,
            weights,
            sites,
            saved,
            plan,
            admitted,
            refused,
            ignored_files: scan.ignored,
        })
    }

    /// The selected layers.
    #[must_use]
    pub(crate) fn layers(&self) -> &'a [Layer] {
        self.weights.map_or(&[], Weights::layers)
    }

    /// Whether there is nothing to begin with: no state, no shard.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.saved.is_none() && self.admitted.is_empty()
    }

    /// How the state's sites are to be read.
    #[must_use]
    pub(crate) fn expected<'b>(&'b self, solved_for: Option<&'b str>) -> Expected<'b> {
        let of_site = |site: &Site| {
            let sizes = site.layers.iter().map(|&l| &self.layers()[l]);
            sizes.map(LayerSize::of).collect()
        };
        Expected {
            sites: &self.sites,
            solved_for,
            layers: self.sites.sites.iter().map(of_site).collect(),
            scored_shares: self.scored_shares(),
        }
    }

    /// Rows kept aside, by site: none where nothing is solved.
    fn scored_shares(&self) -> Vec<f64> {
        let share = |site: &Site| {
            let sizes = site.layers.iter().map(|&l| &self.layers()[l]);
            if site.layers.is_empty() {
                return 0.0;
            }
            scored_share(site.in_features, sizes.map(ScoredLayer::of))
        };
        self.sites.sites.iter().map(share).collect()
    }

    /// What the pipeline is lent to solve what a state holds; a run that takes shards says more.
    #[must_use]
    pub(crate) fn context<'b>(
        &'b self,
        cores: &'b Cores,
        reporter: &'b Reporter,
        ledger: &'b Ledger<'b>,
        stopping: &'b AtomicBool,
    ) -> Context<'b> {
        Context {
            settings: self.settings,
            sites: &self.sites,
            scored_shares: self.scored_shares(),
            solver: self.weights.map(|weights| SiteSolver {
                weights,
                settings: self.settings,
                compute: Compute {
                    kernel: self.settings.compute.kernel,
                    cores,
                },
            }),
            cores,
            reporter,
            ledger,
            live: false,
            published_position: 0,
            flags: Flags::new(stopping),
            wake: None,
            jobs_in_flight: AtomicUsize::new(0),
        }
    }
}

/// The sites of a state, with the layers of today, and which shards fit them.
fn continued(
    settings: &Settings,
    weights: Option<&Weights>,
    record: &SitesRecord,
    headers: &[ShardHeader],
    continues: bool,
) -> Result<Grouped, Fatal> {
    // Once begun, R goes on being gathered, also for a method that does without.
    let kind = record.second_moment;
    let sites = match weights {
        None => Sites::saved(&record.sites, &record.shares, kind),
        Some(weights) => weights.sites(&record.shares, kind)?,
    };
    let asked = Asked {
        needs_r: settings.solve.method.needs_r(),
        continues,
    };
    check_sites(&settings.state, record, &sites, asked)?;
    let admission = Admission {
        weights,
        selection: &settings.weights.selection,
        sites: &sites,
    };
    let fits = headers.iter().filter_map(|h| admission.admit(h).ok());
    let admitted = fits.collect();
    Ok(Grouped { sites, admitted })
}
