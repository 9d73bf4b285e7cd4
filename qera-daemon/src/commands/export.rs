//! `export imatrix`: a state's statistics of single channels, as a file for llama.cpp's tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::disk;
use crate::disk::presence::is_folder;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};
use crate::observe::event::Event;
use crate::observe::imatrix_events::ImatrixWritten;
use crate::observe::reporter::Reporter;
use crate::run::saved_names::saved_names;
use crate::settings::Settings;
use crate::state::journal::Gathered;
use crate::state::restore::newest_whole;
use crate::state::snapshot::Index;
use crate::state::statistics_file::{SavedChannels, read_channels};
use crate::state::{SitesRecord, read_sites};
use crate::weights::Weights;
use crate::weights::opening::Model;
use crate::weights::sites::Sites;

/// How names in a GGUF begin: blocks, and the output layer.
const GGUF_NAMES: [&str; 2] = ["blk.", "output"];

/// Writes E[x^2] and the mean of x for every input in the state, which is only read.
///
/// # Errors
/// [`Fatal::StateRefused`] for a state without statistics, of another checkpoint, or whose names in
/// GGUF are unknown although a checkpoint is given; [`Fatal::Usage`] where a checkpoint is missing,
/// and for a path that is a folder; [`Fatal::Io`].
pub(crate) fn export_imatrix(
    settings: &Settings,
    file: &Path,
    reporter: &Reporter,
) -> Result<Exit, Fatal> {
    if is_folder(file)? {
        return Err(Fatal::Usage(format!(
            "--out {}: is a folder; the imatrix is a file",
            file.display()
        )));
    }
    let state = &settings.state;
    let refuse = |reason: &str| Fatal::StateRefused {
        path: state.clone(),
        reason: reason.into(),
    };
    let Some(record) = read_sites(state)? else {
        return Err(refuse(
            "holds no statistics: --state names the folder of the run that gathered them",
        ));
    };
    let inputs = match Model::open(settings)? {
        Some(model) => ExportedInputs::of_checkpoint(settings, &model, &record)?,
        None => ExportedInputs::of_recorded_names(state, &record)?,
    };
    let newest = newest_whole(state, |snapshot| {
        let index = Index::read(snapshot)?;
        let mut sums = SummedUp::new(index.gathered.clone());
        for saved in &index.sites {
            if let Some(tensors) = inputs.tensors_of(&saved.key, index.named) {
                let path = saved.statistics_file(snapshot);
                let channels = read_channels(&path, &saved.statistics, &saved.key)?;
                sums.add(tensors, &channels);
            }
        }
        Ok(sums)
    })?;
    let sums = newest.map(|found| found.value);
    let Some(sums) = sums.filter(|sums| !sums.entries.is_empty()) else {
        return Err(refuse("holds no rows yet"));
    };
    if !inputs.unnamed.is_empty() {
        reporter.say(&Event::Warning {
            subject: "imatrix",
            message: format!(
                "it is not known what a GGUF calls {}",
                inputs.unnamed.join(", ")
            ),
        });
    }
    let (entries, shards, rows) = (sums.entries.len(), sums.gathered.shards, sums.rows);
    let written = sums.imatrix().write();
    let bytes = written.map_err(|error| refuse(&format!("makes no imatrix: {error}")))?;
    disk::replace(file, &bytes)?;
    reporter.say(&Event::ImatrixWritten(ImatrixWritten {
        file: file.display().to_string(),
        entries,
        shards,
        rows,
    }));
    Ok(Exit::Done)
}

/// The inputs of a state, and the tensors of a GGUF that read each of them.
struct ExportedInputs {
    sites: Sites,
    /// The tensors of each site.
    tensors: Vec<Vec<String>>,
    /// Layers that have no name in GGUF.
    unnamed: Vec<String>,
    /// How the state's keys become those of the sites, where it was gathered without a checkpoint.
    record: SitesRecord,
}

impl ExportedInputs {
    /// The inputs under the names that the checkpoint's kind has in GGUF.
    fn of_checkpoint(
        settings: &Settings,
        model: &Model,
        saved: &SitesRecord,
    ) -> Result<Self, Fatal> {
        let record = match &saved.recording.names {
            Some(_) => saved.clone(),
            None => {
                let names = saved_names(settings, model, saved)?;
                saved.named_by(names, model.architectures())
            }
        };
        let weights = model.select(settings, &record.recording)?;
        check_gathered_with(&settings.state, saved, &weights)?;
        let sites = weights.sites(&record.shares, record.second_moment)?;
        check_widths(&settings.state, saved, &record, &sites)?;
        let (mut tensors, mut unnamed) = (Vec::new(), Vec::new());
        for site in &sites.sites {
            let layers = site.layers.iter();
            let names = layers.map(|&layer| weights.layers()[layer].name.as_str());
            let mut own = Vec::new();
            for name in names {
                match tensor_of(&weights, name) {
                    Some(tensor) => own.push(tensor),
                    None => unnamed.push(name.to_owned()),
                }
            }
            tensors.push(own);
        }
        if tensors.iter().all(Vec::is_empty) {
            return Err(Fatal::StateRefused {
                path: settings.state.clone(),
                reason: format!(
                    "{} is not of a kind whose names in GGUF are known (model_type in its config.json)",
                    weights.path().display()
                ),
            });
        }
        Ok(Self {
            sites,
            tensors,
            unnamed,
            record,
        })
    }

    /// The inputs under the names of the shards, which are GGUF's where llama.cpp's tap wrote them.
    fn of_recorded_names(state: &Path, record: &SitesRecord) -> Result<Self, Fatal> {
        let recording = &record.recording;
        let sites = Sites::saved(&record.sites, &record.shares, record.second_moment);
        let mut tensors = vec![Vec::new(); sites.sites.len()];
        let modules = recording.linears.all();
        let named = record.sites.iter().map(|site| site.name.as_str());
        let modules: BTreeSet<&str> = modules.chain(named).collect();
        for module in modules {
            let Some(site) = sites.of(module) else {
                continue;
            };
            let name = recording.recorded_name(module);
            if !GGUF_NAMES.iter().any(|begin| name.starts_with(begin)) {
                return Err(Fatal::Usage(format!(
                    "--checkpoint PATH is needed: {} was gathered under names that are not GGUF's \
                     ('{name}'), and a folder with config.json, or a GGUF, says what they are there",
                    state.display()
                )));
            }
            tensors[site].push(format!("{name}.weight"));
        }
        Ok(Self {
            sites,
            tensors,
            unnamed: Vec::new(),
            record: record.clone(),
        })
    }

    /// The tensors that read a saved input.
    fn tensors_of(&self, key: &str, named: bool) -> Option<&[String]> {
        let names = self.record.recording.names.as_ref().filter(|_| !named);
        let site = self.sites.saved_as(key, names)?;
        Some(&self.tensors[site])
    }
}

/// Checks that the state was gathered with this checkpoint, if it was gathered with one: the same
/// names occur in many models.
fn check_gathered_with(state: &Path, saved: &SitesRecord, weights: &Weights) -> Result<(), Fatal> {
    let own = weights.identity();
    let found = saved.model.checkpoint.as_deref();
    match found.filter(|found| *found != own) {
        None => Ok(()),
        Some(found) => Err(Fatal::StateRefused {
            path: state.to_path_buf(),
            reason: format!(
                "belongs to another checkpoint ({found}, {} is {own}): --checkpoint names the one that it was gathered with",
                weights.path().display()
            ),
        }),
    }
}

/// Checks that what was gathered is as wide as the checkpoint's weights.
fn check_widths(
    state: &Path,
    saved: &SitesRecord,
    record: &SitesRecord,
    sites: &Sites,
) -> Result<(), Fatal> {
    let named = saved.recording.names.is_some();
    let names = record.recording.names.as_ref().filter(|_| !named);
    for then in &saved.sites {
        let now = sites.saved_as(&then.key, names).map(|at| &sites.sites[at]);
        if let Some(now) = now.filter(|now| now.in_features != then.in_features) {
            return Err(Fatal::StateRefused {
                path: state.to_path_buf(),
                reason: format!(
                    "holds statistics of {} with in_features {}, the checkpoint's {} has {}: --checkpoint names another model",
                    then.name, then.in_features, now.name, now.in_features
                ),
            });
        }
    }
    Ok(())
}

fn tensor_of(weights: &Weights, name: &str) -> Option<String> {
    Some(weights.family()?.tensor_of(name)?.tensor)
}

/// The sums of everything in a snapshot.
struct SummedUp {
    gathered: Gathered,
    entries: BTreeMap<String, ImatrixEntry>,
    /// Number of rows of the input that has most.
    rows: u64,
}

impl SummedUp {
    const fn new(gathered: Gathered) -> Self {
        Self {
            gathered,
            entries: BTreeMap::new(),
            rows: 0,
        }
    }

    /// Adds an input for the tensors that read it.
    fn add(&mut self, tensors: &[String], channels: &SavedChannels) {
        let SavedChannels {
            rows,
            weight,
            has_sums,
            moments,
        } = channels;
        if *rows == 0 {
            return;
        }
        self.rows = self.rows.max(*rows);
        // Means by weight, scaled as if each row had weight 1.
        let count = *rows as f64;
        let a_row = count / weight;
        let means = moments.mean.iter();
        let squares = means.clone().zip(&moments.m2);
        let entry = ImatrixEntry {
            sums: squares
                .map(|(mean, m2)| count * mean * mean + a_row * m2)
                .collect(),
            counts: vec![count],
            sums_of_x: (!has_sums).then(|| means.map(|mean| count * mean).collect()),
        };
        for tensor in tensors {
            self.entries.insert(tensor.clone(), entry.clone());
        }
    }

    /// The sums as an imatrix. Its chunks are the shards, and their size is the number of rows that
    /// they have of the input with most.
    fn imatrix(self) -> Imatrix {
        let chunks = self.gathered.shards.max(1) as u64;
        Imatrix {
            entries: self.entries,
            unit: CountUnit::Rows,
            datasets: vec![format!("qera, {chunks} shards")],
            chunks,
            chunk_size: (self.rows / chunks).max(1),
        }
    }
}
