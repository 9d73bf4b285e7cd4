//! What is known before a row is read: checkpoint, layers, sites, the shards that are there, and what it will all need.
//! Nothing is locked yet.

use core::sync::atomic::{AtomicBool, AtomicUsize};

use crate::calibrate::aside::scored_share;
use crate::error::Fatal;
use crate::host::cores::Cores;
use crate::observe::reporter::Reporter;
use crate::pipeline::context::{Context, Flags};
use crate::pipeline::ledger::Ledger;
use crate::plan::Plan;
use crate::plan::planned_run::{PlannedRun, Solving, Start};
use crate::run::model::Model;
use crate::settings::Settings;
use crate::source::admission::{Admission, Admitted};
use crate::source::grouping::group;
use crate::source::intake::{Intake, Scan};
use crate::source::shard::ShardHeader;
use crate::state::restore::{Expected, check_sites};
use crate::state::{SitesRecord, read_sites};
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// Sites, shards and plan.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The checkpoint; none where statistics are only gathered.
    pub(crate) model: Option<&'a Model>,
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
    /// Takes the sites from the state where there is one, and else groups the layers by what the shards in the folder
    /// declare.
    ///
    /// # Errors
    /// [`Fatal`] for a folder or state that cannot serve; a bad shard is only counted.
    pub(crate) fn prepare(
        settings: &'a Settings,
        model: Option<&'a Model>,
        mut intake: Option<&mut Intake>,
    ) -> Result<Self, Fatal> {
        let saved = read_sites(&settings.state)?;
        let scan = match &mut intake {
            Some(intake) => intake.scan()?,
            None => Scan::default(),
        };
        let mut refused: Vec<String> = scan.refused.iter().map(ToString::to_string).collect();
        let Grouped { sites, admitted } = match &saved {
            Some(record) => continued(settings, model, record, &scan.ready, intake.is_some())?,
            None => {
                let model = model.map(|m| (&m.checkpoint, &m.layers));
                let grouping = group(settings, model, scan.ready)?;
                for (header, refusal) in grouping.refused {
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
            layers: model.map_or(&[][..], |model| &model.layers.selected),
            sites: &sites,
            shards: &admitted,
            solving: Solving::of(settings),
            start: match saved {
                Some(_) => Start::Continued,
                None => Start::Anew,
            },
        };
        let plan = Plan::new(&run, keeps_r(settings, saved.as_ref()));
        Ok(Self {
            settings,
            model,
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
        self.model.map_or(&[], |model| &model.layers.selected)
    }

    /// Whether R is gathered.
    #[must_use]
    pub(crate) fn keeps_r(&self) -> bool {
        keeps_r(self.settings, self.saved.as_ref())
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
            sizes.map(|l| (l.in_features, l.out_features)).collect()
        };
        Expected {
            sites: &self.sites,
            keeps_r: self.keeps_r(),
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
            scored_share(site.in_features, sizes.map(|l| (l.out_features, l.rank)))
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
            keeps_r: self.keeps_r(),
            scored_shares: self.scored_shares(),
            solver: self.model.map(|model| model.solver(self.settings, cores)),
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

/// Once begun, R goes on being gathered, also for a method that does without.
fn keeps_r(settings: &Settings, saved: Option<&SitesRecord>) -> bool {
    saved.map_or(settings.solve.method.needs_r(), |saved| saved.keeps_r)
}

/// The sites of a state, with the layers of today, and which shards fit them.
fn continued(
    settings: &Settings,
    model: Option<&Model>,
    record: &SitesRecord,
    headers: &[ShardHeader],
    continues: bool,
) -> Result<Grouped, Fatal> {
    let sites = match model {
        None => Sites::saved(&record.sites, &record.shares),
        Some(model) => Sites::group(&model.layers.selected, &record.shares).map_err(|reason| {
            Fatal::Checkpoint {
                path: model.checkpoint.path.clone(),
                reason,
            }
        })?,
    };
    let how = (settings.solve.method.needs_r(), continues);
    check_sites(&settings.state, record, &sites, how)?;
    let admission = Admission {
        checkpoint: model.map(|m| &m.checkpoint),
        model_names: model.map_or_else(Vec::new, |m| m.checkpoint.model_names()),
        selection: &settings.weights.selection,
        sites: &sites,
    };
    let fits = headers.iter().filter_map(|h| admission.admit(h).ok());
    let admitted = fits.collect();
    Ok(Grouped { sites, admitted })
}
