//! What is known before a row is read: checkpoint, layers, sites, the shards that are there, and
//! the plan. Nothing is locked yet.

use core::sync::atomic::{AtomicBool, AtomicUsize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::calibrate::aside::{ScoredLayer, scored_share};
use crate::calibrate::row_room::RowRoom;
use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::observe::reporter::Reporter;
use crate::pipeline::context::{Context, Flags};
use crate::pipeline::flight::Flight;
use crate::pipeline::ingest_meter::IngestMeter;
use crate::pipeline::ledger::Ledger;
use crate::plan::Plan;
use crate::plan::gathering::holds;
use crate::plan::planned_run::{PlannedRun, Solving, Start};
use crate::run::saved_names::{check_map, saved_names};
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::admission::{Admission, Admitted};
use crate::source::grouping::{RefusedShard, group};
use crate::source::intake::{Intake, Scan};
use crate::source::refusal::Refusal;
use crate::source::shard::ShardHeader;
use crate::state::asked::{Asked, check_model, check_sites, check_statistics, check_window_memory};
use crate::state::held::HeldFiles;
use crate::state::progress_file::LayerSize;
use crate::state::restore::Expected;
use crate::state::{SitesRecord, SolvedModel, read_sites};
use crate::weights::Weights;
use crate::weights::frozen::record::RoundingRecord;
use crate::weights::layers::Layer;
use crate::weights::opening::Model;
use crate::weights::recording::Recording;
use crate::weights::rounded_folders::RoundedFolders;
use crate::weights::sites::{Site, Sites};

/// Sites, shards and plan.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The weights; none where statistics are only gathered.
    pub(crate) weights: Option<Arc<Weights>>,
    /// What is known of the recorded model.
    pub(crate) recording: Recording,
    /// The sites.
    pub(crate) sites: Sites,
    /// The saved sites of the state that is continued.
    pub(crate) saved: Option<SitesRecord>,
    /// The memory and work of the run.
    pub(crate) plan: Plan,
    /// Shards whose headers fit, and whose rows are not in the state yet.
    pub(crate) admitted: Vec<Admitted>,
    /// Shards whose rows are in the state.
    pub(crate) held: Vec<Admitted>,
    /// The reasons of shards that were set aside.
    pub(crate) refused: Vec<String>,
    /// Messages on shards that the disk did not give.
    pub(crate) unanswered: Vec<String>,
    /// Number of visible files that are no shards.
    pub(crate) ignored_files: usize,
}

/// The layers and sites, and the shards that fit them.
struct Grouped {
    weights: Option<Arc<Weights>>,
    recording: Recording,
    sites: Sites,
    admitted: Vec<Admitted>,
    held: Vec<Admitted>,
}

impl<'a> Prepared<'a> {
    /// Takes the sites from the state if there is one. Otherwise groups the layers by the
    /// declarations of the shards in the folder.
    ///
    /// # Errors
    /// [`Fatal`] for a folder or state that cannot be used; a bad shard is only counted.
    pub(crate) fn prepare(
        settings: &'a Settings,
        model: Option<&Model>,
        intake: Option<&mut Intake>,
    ) -> Result<Self, Fatal> {
        let saved = read_sites(&settings.state)?;
        Self::on(settings, model, intake, saved)
    }

    /// Takes the sites from the checkpoint alone. No state is read, and there are no shards.
    ///
    /// # Errors
    /// [`Fatal`] for a checkpoint that cannot be used.
    pub(crate) fn without_state(
        settings: &'a Settings,
        model: Option<&Model>,
    ) -> Result<Self, Fatal> {
        Self::on(settings, model, None, None)
    }

    /// Goes on from what is saved.
    fn on(
        settings: &'a Settings,
        model: Option<&Model>,
        mut intake: Option<&mut Intake>,
        saved: Option<SitesRecord>,
    ) -> Result<Self, Fatal> {
        let scan = match &mut intake {
            Some(intake) => intake.scan()?,
            None => Scan::default(),
        };
        let said = |of: &[Refusal]| of.iter().map(ToString::to_string).collect();
        let mut refused: Vec<String> = said(&scan.refused);
        let unanswered = said(&scan.unanswered);
        let Grouped {
            weights,
            recording,
            sites,
            admitted,
            held,
        } = match &saved {
            Some(record) => continued(settings, model, record, &scan.ready, intake.is_some())?,
            None => {
                let holds = |sites: &Sites| holds(settings, sites, 0);
                let grouping = group(settings, model, scan.ready, holds)?;
                for RefusedShard { header, refusal } in grouping.refused {
                    refused.push(refusal.to_string());
                    if let Some(intake) = &mut intake {
                        intake.done_with(header.file_name(), header.identity());
                    }
                }
                Grouped {
                    weights: grouping.weights,
                    recording: grouping.recording,
                    sites: grouping.sites,
                    admitted: grouping.admitted,
                    held: Vec::new(),
                }
            }
        };
        refused.sort();
        let made = rounded_before(settings, weights.as_deref(), intake.is_some());
        let run = PlannedRun {
            settings,
            made: &made,
            weights: weights.as_deref(),
            layers: weights.as_deref().map_or(&[][..], Weights::layers),
            sites: &sites,
            shards: &admitted,
            held: &held,
            room: room(settings, saved.as_ref(), &sites, intake.is_some()),
            solving: Solving::of(settings),
            start: match saved {
                Some(_) => Start::Continued,
                None if intake.is_none() && settings.imatrix.is_given() => Start::Never,
                None => Start::Anew,
            },
        };
        let plan = Plan::new(&run);
        Ok(Self {
            settings,
            weights,
            recording,
            sites,
            saved,
            plan,
            admitted,
            held,
            refused,
            unanswered,
            ignored_files: scan.ignored,
        })
    }

    /// The selected layers.
    #[must_use]
    pub(crate) fn layers(&self) -> &[Layer] {
        self.weights.as_deref().map_or(&[], Weights::layers)
    }

    /// The model that the state's corrections and evidence belong to from now on.
    #[must_use]
    pub(crate) fn solved_model(&self) -> SolvedModel {
        let saved = self.saved.as_ref().map(|of| of.model.clone());
        let saved = saved.unwrap_or_default();
        let Some(weights) = &self.weights else {
            return saved;
        };
        let quantized = weights.given().map(|of| of.given.fingerprint.clone());
        SolvedModel {
            checkpoint: Some(weights.identity().to_owned()),
            // A run that makes W~ in between does not change which given file the state belongs to.
            quantized: quantized.or(saved.quantized),
        }
    }

    /// Whether there is nothing to begin with: no state, and no shard that names a layer.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        let solves = self.weights.is_some();
        let unsaid = self.recording.linears.is_empty() && self.settings.solve.method.uses_rows();
        let names_none = solves && (unsaid || self.layers().is_empty());
        self.saved.is_none() && (self.admitted.is_empty() || names_none)
    }

    /// Sites of which the state that is continued has no statistics.
    #[must_use]
    pub(crate) fn sites_without_statistics(&self) -> Vec<&Site> {
        let Some(saved) = &self.saved else {
            return Vec::new();
        };
        let named = saved.recording.names.is_some();
        let names = self.recording.names.as_ref().filter(|_| !named);
        let keys = saved.sites.iter().map(|saved| saved.key.as_str());
        let gathered: BTreeSet<usize> = keys
            .filter_map(|key| self.sites.saved_as(key, names))
            .collect();
        let sites = self.sites.sites.iter().enumerate();
        let missing = sites.filter(|(at, _)| !gathered.contains(at));
        missing.map(|(_, site)| site).collect()
    }

    /// Inputs of a state that was gathered without a checkpoint, for which this checkpoint has no
    /// weight. They may have another name there.
    #[must_use]
    pub(crate) fn statistics_of_no_weight(&self) -> Vec<&str> {
        let (Some(weights), Some(saved)) = (&self.weights, &self.saved) else {
            return Vec::new();
        };
        let gathered = saved.recording.names.is_none();
        let names = saved.sites.iter().map(|site| site.name.as_str());
        let is_there = |name: &&str| weights.has_module(&self.recording.name(name));
        names.filter(|name| gathered && !is_there(name)).collect()
    }

    /// How the state's sites have to be read.
    #[must_use]
    pub(crate) fn expected<'b>(&'b self, solved_for: Option<&'b str>) -> Expected<'b> {
        let of_site = |site: &Site| {
            let sizes = site.layers.iter().map(|&l| &self.layers()[l]);
            sizes.map(LayerSize::of).collect()
        };
        Expected {
            sites: &self.sites,
            names: self.recording.names.as_ref(),
            solved_for,
            layers: self.sites.sites.iter().map(of_site).collect(),
            scored_shares: self.scored_shares(),
        }
    }

    /// The share of rows that each site keeps aside: none where nothing is solved.
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

    /// What the pipeline is lent to solve a state; a run that takes shards adds to it.
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
            imatrix: None,
            scored_shares: self.scored_shares(),
            solver: self.weights.as_deref().map(|weights| SiteSolver {
                weights,
                settings: self.settings,
                compute: Compute::new(self.settings.compute.kernel, cores),
                accelerator: self.settings.compute.device.accelerator().map(|a| &**a),
            }),
            summed: self.plan.summed.among(&self.sites),
            cores,
            reporter,
            ledger,
            live: false,
            published_position: 0,
            flags: Flags::new(stopping),
            wake: None,
            flight: Flight::default(),
            ingest: IngestMeter::default(),
            jobs_in_flight: AtomicUsize::new(0),
            warned: Mutex::default(),
        }
    }
}

/// The room for rows held out and kept aside: that of the run, or that of the state which is
/// solved.
fn room(settings: &Settings, saved: Option<&SitesRecord>, sites: &Sites, runs: bool) -> RowRoom {
    let memory = match saved.filter(|_| !runs) {
        Some(state) => state.window_memory,
        None => Some(settings.compute.window_memory),
    };
    memory.map_or(RowRoom::WHOLE, |bytes| RowRoom::of_sites(bytes, sites))
}

/// How layers were rounded before: in this run's state, or in what `solve` reads.
fn rounded_before(
    settings: &Settings,
    weights: Option<&Weights>,
    runs: bool,
) -> Vec<Option<RoundingRecord>> {
    let rounding = &settings.rounding;
    let Some(weights) = weights.filter(|_| rounding.rounding.uses_rows()) else {
        return Vec::new();
    };
    let (state, out) = (&settings.state, &settings.publish.out);
    let new_checkpoint = settings.weights.new_checkpoint;
    let folders = if runs {
        RoundedFolders::of_run(state, new_checkpoint)
    } else {
        RoundedFolders::of_solve(state, out, rounding.round_again, new_checkpoint)
    };
    weights.rounded_in(&folders)
}

/// With the sketches of a state, where they are asked for.
fn sketched(sites: Sites, record: &SitesRecord, weights: &Weights, asked: Asked) -> Sites {
    match &record.sketch {
        Some(sketch) if asked.needs_r || asked.continues => {
            sites.sketched_as_saved(sketch.clone(), &record.sites, weights.layers())
        }
        Some(_) => sites.without_sketches(&record.sites),
        None => sites,
    }
}

/// The sites of a state with today's layers, and the shards that fit them.
fn continued(
    settings: &Settings,
    model: Option<&Model>,
    record: &SitesRecord,
    headers: &[ShardHeader],
    continues: bool,
) -> Result<Grouped, Fatal> {
    let named = match (model, &record.recording.names) {
        (Some(model), None) => {
            let names = saved_names(settings, model, record)?;
            Some(record.named_by(names, model.architectures()))
        }
        _ => None,
    };
    let record = named.as_ref().unwrap_or(record);
    check_map(settings, record)?;
    let recording = &record.recording;
    let weights = model.map(|model| model.select(settings, recording));
    let weights = weights.transpose()?.map(Arc::new);
    // Once begun, R goes on being gathered, even for a method that does not need it.
    let kind = record.second_moment;
    let asked = Asked {
        needs_r: settings.solve.method.needs_r(),
        statistics: settings.solve.statistics,
        continues,
    };
    check_statistics(&settings.state, record, weights.as_deref(), asked)?;
    let sites = match &weights {
        None => Sites::saved(&record.sites, &record.shares, kind),
        Some(weights) => sketched(weights.sites(&record.shares, kind)?, record, weights, asked),
    };
    check_sites(&settings.state, record, &sites, asked)?;
    if continues {
        check_window_memory(&settings.state, record, settings.compute.window_memory)?;
    }
    if let Some(model) = model.filter(|_| !settings.weights.new_checkpoint) {
        let quantized = model.given().map(|of| of.fingerprint.clone());
        let own = SolvedModel {
            checkpoint: Some(model.identity.clone()),
            // Statistics may be solved for another given model.
            quantized: quantized.filter(|_| continues),
        };
        check_model(&settings.state, record, &own)?;
    }
    let admission = Admission {
        weights: weights.as_deref(),
        selection: &settings.weights.selection,
        sites: &sites,
        recording,
        fixed: weights.is_some(),
        method: settings.solve.method,
    };
    let files = HeldFiles::read(&settings.state, settings.accept_loss)?;
    let is_held = |header: &&ShardHeader| files.has(&header.name, header.identity());
    let (held, new): (Vec<_>, Vec<_>) = headers.iter().partition(is_held);
    let fitting = |headers: Vec<&ShardHeader>| -> Vec<Admitted> {
        let fits = headers.into_iter().filter_map(|h| admission.admit(h).ok());
        fits.collect()
    };
    let (admitted, held) = (fitting(new), fitting(held));
    Ok(Grouped {
        recording: recording.clone(),
        weights,
        sites,
        admitted,
        held,
    })
}
