//! The check of an adapter's files: before `current` is switched to a generation, and by `verify`
//! for anyone. Configuration and tensors agree, every target is in the model with the right shape,
//! fingerprints fit, no factor is zero without a reason. Every problem is named, not only the
//! first; what is not looked at is said.

pub(crate) mod adapter_folder;
pub(crate) mod belongs;
pub(crate) mod claims;
pub(crate) mod factors;
pub(crate) mod findings;
pub(crate) mod given;
pub(crate) mod manifest_claims;
pub(crate) mod modules;
pub(crate) mod packed;

pub(crate) mod served_codes;
pub(crate) mod served_model;
pub(crate) mod served_names;
pub(crate) mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::{is_folder, resolve};
use crate::publish::check::adapter_folder::{AdapterFolder, CONFIG};
use crate::publish::check::belongs::{Layout, check_base, check_shapes};
use crate::publish::check::claims::{check_claims, check_zeros};
use crate::publish::check::factors::{CheckedPair, check_factors};
use crate::publish::check::findings::Findings;
use crate::publish::check::given::{check_given, is_told_whole};
use crate::publish::check::packed::check_packed;
use crate::publish::check::served_model::ServedModel;
use crate::publish::check::served_names::ServedNames;
use crate::publish::check::targets::{KnownModules, check_targets};
use crate::settings::publish::BaseForm;
use crate::weights::Weights;

/// The model that an adapter is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeldAgainst<'a> {
    /// The one in this folder, whatever became of it.
    Folder(&'a Path),
    /// The one in this folder, which the run itself wrote or found whole: large files are not read
    /// again for each generation.
    Own(&'a Path),
    /// The checkpoint of the run, where the base is elsewhere.
    Run(&'a Weights),
    /// The one that the adapter names, or that lies beside it.
    Named,
}

/// Checks the adapter in a folder.
#[must_use]
pub(crate) fn check(path: &Path, against: HeldAgainst<'_>) -> Findings {
    let mut findings = Findings::default();
    let folder = AdapterFolder::open(path, &mut findings);
    let pairs = check_factors(&folder, &mut findings);
    let held = held(&folder, against, &mut findings);
    let model = held.model();
    let names = ServedNames::of(folder.manifest.as_ref());
    match &folder.manifest {
        Some(manifest) => check_claims(&folder, manifest, &pairs, &mut findings),
        None => check_zeros(&pairs, &mut findings),
    }
    if let Some(config) = &folder.config {
        if folder.tensors.is_some() {
            let modules = known_modules(&folder, model, &names);
            let with_tensors = with_tensors(&folder);
            let strict = folder.manifest.is_some();
            check_targets(config, &with_tensors, &modules, strict, &mut findings);
        }
        if let Some(model) = model {
            let layout = Layout::of(config.transposed, folder.manifest.as_ref());
            check_shapes(model, &names, &layout, &pairs, &mut findings);
            if let Some(manifest) = folder.manifest.as_ref().filter(|_| model.is_served()) {
                check_base(model, manifest, &layout, &mut findings);
                if !matches!(against, HeldAgainst::Own(_)) {
                    check_packed(model, &mut findings);
                }
            }
        }
    }
    findings.describe(describe(&folder, &pairs, &held));
    findings
}

/// What the adapter is held against.
enum Held {
    /// A model's folder, or the checkpoint of the run.
    Model(Box<ServedModel>),
    /// A GGUF or a packed folder, which its fingerprint tells.
    File(PathBuf),
    /// Nothing that is there.
    Nothing,
}

impl Held {
    fn model(&self) -> Option<&ServedModel> {
        match self {
            Self::Model(model) => Some(model),
            Self::File(_) | Self::Nothing => None,
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Model(model) => Some(&model.path),
            Self::File(path) => Some(path),
            Self::Nothing => None,
        }
    }
}

/// The model; one that cannot be opened is a problem.
fn held(folder: &AdapterFolder, against: HeldAgainst<'_>, findings: &mut Findings) -> Held {
    let named;
    let path = match against {
        HeldAgainst::Run(weights) => return Held::Model(Box::new(ServedModel::of_run(weights))),
        HeldAgainst::Folder(path) | HeldAgainst::Own(path) => path,
        HeldAgainst::Named => {
            let Some(found) = named_base(folder, findings) else {
                return Held::Nothing;
            };
            named = found;
            &named
        }
    };
    if is_told_whole(path, folder.manifest.as_ref()) {
        check_given(path, folder.manifest.as_ref(), findings);
        return Held::File(path.to_path_buf());
    }
    match ServedModel::open(path) {
        Ok(model) => Held::Model(Box::new(model)),
        Err(error) => {
            findings.problem(format!("base: {error}"));
            Held::Nothing
        }
    }
}

/// The base that the configuration names, or OUT/base of OUT/generations/N.
fn named_base(folder: &AdapterFolder, findings: &mut Findings) -> Option<PathBuf> {
    let named = folder.config.as_ref().and_then(|c| c.base_model.as_deref());
    let beside = resolve(&folder.path).ok().and_then(|path| {
        let generations = path.parent()?;
        let is_published = generations.file_name()? == "generations";
        is_published.then(|| generations.parent().map(Path::to_path_buf))?
    });
    // As a run prefers them.
    let forms = BaseForm::ALL.into_iter().rev();
    let beside = forms.filter_map(|form| Some(beside.as_ref()?.join(form.folder())));
    let candidates = named.map(PathBuf::from).into_iter().chain(beside);
    if let Some(found) = candidates.into_iter().find(|path| is_folder(path)) {
        return Some(found);
    }
    let given = folder
        .manifest
        .as_ref()
        .and_then(|of| of.quantized.as_ref());
    if let Some(file) = given.map(|of| PathBuf::from(&of.path)) {
        if is_told_whole(&file, folder.manifest.as_ref()) {
            return Some(file);
        }
        findings.not_checked(format!(
            "whether the file that it corrects is the one that is served: {} is not there; --base \
             FILE names it",
            file.display()
        ));
        return None;
    }
    let belongs = folder.manifest.as_ref();
    let belongs = belongs.and_then(|manifest| manifest.fingerprints.base.as_deref());
    let named = named.unwrap_or("none");
    match belongs {
        Some(fingerprint) => findings.problem(format!(
            "{CONFIG}: its base, {named} ({fingerprint}), is not there; --base DIR names it"
        )),
        None => findings.not_checked(format!(
            "whether names and shapes are those of the model: {CONFIG} names as its base {named}, which is no folder here; --base DIR names it"
        )),
    }
    None
}

/// The base that an adapter is served on where nobody names one: as [`check`] finds it.
#[must_use]
pub(crate) fn served_base(path: &Path) -> Option<PathBuf> {
    // What is wrong with the files is said by the check itself.
    let mut unsaid = Findings::default();
    let folder = AdapterFolder::open(path, &mut unsaid);
    named_base(&folder, &mut unsaid)
}

/// The modules that have a tensor.
fn with_tensors(folder: &AdapterFolder) -> BTreeSet<&str> {
    let tensors = folder.tensors.iter();
    let names = tensors.flat_map(|tensors| tensors.pairs.keys());
    names.map(String::as_str).collect()
}

/// The modules of the model; without it those that the adapter itself knows of.
fn known_modules(
    folder: &AdapterFolder,
    model: Option<&ServedModel>,
    names: &ServedNames,
) -> KnownModules {
    if let Some(model) = model {
        let serving = folder.manifest.as_ref().map(|manifest| &manifest.serving);
        let modules = model.modules().into_iter();
        let modules = modules.filter(|module| serving.is_none_or(|of| of.has(module)));
        return KnownModules {
            names: modules.map(|module| names.served(module)).collect(),
            complete: true,
        };
    }
    let mut known: BTreeSet<String> = with_tensors(folder)
        .into_iter()
        .map(str::to_owned)
        .collect();
    if let Some(manifest) = &folder.manifest {
        known.extend(manifest.by_served_name().into_keys().map(str::to_owned));
    }
    KnownModules {
        names: known,
        complete: false,
    }
}

/// What was looked at.
fn describe(folder: &AdapterFolder, pairs: &BTreeMap<String, CheckedPair>, held: &Held) -> String {
    let rank = pairs.values().map(|pair| pair.rank).max();
    let on = held.path();
    let on = on.map_or("no model".into(), |path| path.display().to_string());
    format!(
        "{}: {} layers of rank {}, on {on}",
        folder.path.display(),
        pairs.len(),
        rank.unwrap_or_default()
    )
}
