//! The check of an adapter's files. It runs before `current` is switched to a generation, and in
//! `verify` for anyone. It checks that configuration and tensors agree, that every target is in the
//! model with the right shape, that fingerprints fit, and that no factor is zero without a reason.
//! Every problem is named, not only the first, and so is what was not looked at.

pub(crate) mod adapter_folder;
pub(crate) mod base_files;
pub(crate) mod belongs;
pub(crate) mod claims;
pub(crate) mod equal_forms;
pub(crate) mod factors;
pub(crate) mod findings;
pub(crate) mod form_pairs;
pub(crate) mod forms;
pub(crate) mod gguf_base;
pub(crate) mod gguf_form;
pub(crate) mod given;
pub(crate) mod manifest_claims;
pub(crate) mod mlx_form;
pub(crate) mod modules;
pub(crate) mod own_keys;
pub(crate) mod packed;
pub(crate) mod served_codes;
pub(crate) mod served_gguf;
pub(crate) mod served_model;
pub(crate) mod served_names;
pub(crate) mod served_rows;
pub(crate) mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::presence::is_folder;
use crate::disk::resolve;
use crate::error::Fatal;
use crate::publish::check::adapter_folder::{AdapterFolder, CONFIG};
use crate::publish::check::factors::check_factors;
use crate::publish::check::findings::Findings;
use crate::publish::check::forms::Forms;
use crate::publish::check::gguf_base::{file_of_base, is_own_gguf};
use crate::publish::check::gguf_form::{check_gguf, check_on_config, check_on_gguf, open_model};
use crate::publish::check::given::{check_given, is_told_whole};
use crate::publish::check::manifest_claims::LayerClaim;
use crate::publish::check::mlx_form::check_mlx;
use crate::publish::check::own_keys::OwnKeys;
use crate::publish::check::served_model::{ServedModel, ServedWeight};
use crate::publish::check::served_names::ServedNames;
use crate::publish::check::targets::{KnownModules, check_targets};
use crate::publish::forms::MLX;
use crate::publish::manifest_seal::MANIFEST;
use crate::publish::written::gguf::GgufFile;
use crate::settings::gguf_path::is_gguf;
use crate::settings::publish::{AdapterForm, BaseForm};
use crate::weights::Weights;
use crate::weights::gguf::file::GgufModel;

/// The model that an adapter is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeldAgainst<'a> {
    /// The model in this folder, whatever happened to it since.
    Folder(&'a Path),
    /// The model in this folder, which this run wrote or found whole: large files are not read
    /// again for each generation.
    Own(&'a Path),
    /// The run's checkpoint, where the base is elsewhere.
    Run(&'a Weights),
    /// The model that the adapter names, or that lies beside it.
    Named,
}

/// Checks the adapter in a folder, or a GGUF adapter.
#[must_use]
pub(crate) fn check(path: &Path, against: HeldAgainst<'_>) -> Findings {
    let mut findings = Findings::default();
    let folder = AdapterFolder::open(path, &mut findings);
    folder.check_files(&mut findings);
    let peft = check_factors(&folder, &mut findings);
    let gguf_file = open_gguf(&folder, &mut findings);
    let manifest = folder.manifest.as_ref();
    let gguf = gguf_file.as_ref();
    let gguf = gguf.map(|file| check_gguf(&gguf_name(&folder), file, manifest, &mut findings));
    let mlx = folder.forms.contains(&AdapterForm::Mlx);
    let called = if folder.is_whole { MLX } else { "" };
    let mlx = mlx.then(|| check_mlx(called, &folder.mlx(), manifest, &mut findings));
    let (name, no_keys) = (gguf_name(&folder), BTreeMap::new());
    let keys = OwnKeys {
        file: &name,
        said: gguf_file
            .as_ref()
            .map_or(&no_keys, |file| &file.lora.fingerprints),
    };
    let held = held(&folder, keys, against, &mut findings);
    keys.check(manifest, held.model(), &mut findings);
    let forms = Forms { peft, gguf, mlx };
    forms.check_claims(&folder, &mut findings);
    check_peft_targets(&folder, held.model(), &mut findings);
    if let Some(model) = held.model() {
        forms.check_on_model(&folder, model, against, &mut findings);
    }
    if let (Some(file), Some(pairs)) = (&gguf_file, &forms.gguf) {
        let opened = held.open_gguf(against, &mut findings);
        let model = match (&opened, against) {
            (None, HeldAgainst::Run(of)) => of.given().and_then(|of| of.given.gguf()),
            (opened, _) => opened.as_ref(),
        };
        if let Some(model) = model {
            check_on_gguf(file, pairs, model, manifest, &mut findings);
        }
        let is_verified = matches!(against, HeldAgainst::Folder(_) | HeldAgainst::Named);
        if let (Some(path), Some(manifest)) = (held.path().filter(|_| is_verified), manifest) {
            match is_folder(path) {
                Ok(true) => check_on_config(pairs, path, manifest, &mut findings),
                Ok(false) => {}
                Err(error) => findings.problem(format!("base: {error}")),
            }
        }
    }
    let on = held.path();
    let on = on.map_or("no model".into(), |path| path.display().to_string());
    findings.describe(forms.describe(&folder, &on));
    findings
}

/// Checks that PEFT's configuration targets exactly the modules that have tensors.
fn check_peft_targets(
    folder: &AdapterFolder,
    model: Option<&ServedModel>,
    findings: &mut Findings,
) {
    let (Some(config), Some(_)) = (&folder.config, &folder.tensors) else {
        return;
    };
    let names = ServedNames::of(folder.manifest.as_ref());
    let modules = known_modules(folder, model, &names);
    let strict = folder.manifest.is_some();
    check_targets(config, &with_tensors(folder), &modules, strict, findings);
}

fn gguf_name(folder: &AdapterFolder) -> String {
    let path = folder.gguf();
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn open_gguf(folder: &AdapterFolder, findings: &mut Findings) -> Option<GgufFile> {
    if !folder.forms.contains(&AdapterForm::Gguf) {
        return None;
    }
    match GgufFile::open(&folder.gguf()) {
        Ok(file) => Some(file),
        Err(error) => {
            findings.problem(format!("{}: {error}", gguf_name(folder)));
            None
        }
    }
}

/// The model that the adapter is checked against, opened.
enum Held {
    /// A model's folder, or the checkpoint of the run.
    Model(Box<ServedModel>),
    /// A GGUF or a packed folder, which is told by its fingerprint.
    File(PathBuf),
    /// No model is there.
    Nothing,
}

impl Held {
    fn model(&self) -> Option<&ServedModel> {
        match self {
            Self::Model(model) => Some(model),
            Self::File(_) | Self::Nothing => None,
        }
    }

    /// Opens the GGUF of the model, unless the run has opened it.
    fn open_gguf(&self, against: HeldAgainst<'_>, findings: &mut Findings) -> Option<GgufModel> {
        let path = match self {
            Self::File(path) => path,
            Self::Model(model) if model.is_gguf() => &model.path,
            Self::Model(_) | Self::Nothing => return None,
        };
        if matches!(against, HeldAgainst::Run(_)) {
            return None;
        }
        match is_gguf(path) {
            Ok(true) => open_model(path, findings),
            Ok(false) => None,
            Err(error) => {
                findings.problem(format!("base: {error}"));
                None
            }
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

/// Opens the model. One that cannot be opened is a problem.
fn held(
    folder: &AdapterFolder,
    keys: OwnKeys<'_>,
    against: HeldAgainst<'_>,
    findings: &mut Findings,
) -> Held {
    find_held(folder, keys, against, findings).unwrap_or_else(|error| {
        findings.problem(format!("base: {error}"));
        Held::Nothing
    })
}

fn find_held(
    folder: &AdapterFolder,
    keys: OwnKeys<'_>,
    against: HeldAgainst<'_>,
    findings: &mut Findings,
) -> Result<Held, Fatal> {
    let named;
    let path = match against {
        HeldAgainst::Run(weights) => {
            return Ok(Held::Model(Box::new(ServedModel::of_run(weights))));
        }
        HeldAgainst::Folder(path) | HeldAgainst::Own(path) => path,
        HeldAgainst::Named => {
            let Some(found) = named_base(folder, findings)? else {
                return Ok(Held::Nothing);
            };
            named = found;
            &named
        }
    };
    let path = file_of_base(path)?;
    if is_told_whole(&path, folder.manifest.as_ref())? {
        check_given(&path, folder.manifest.as_ref(), keys, findings);
        return Ok(Held::File(path));
    }
    ServedModel::open(&path).map(|model| Held::Model(Box::new(model)))
}

/// The base that the configuration names, or else OUT/base of OUT/generations/N.
fn named_base(folder: &AdapterFolder, findings: &mut Findings) -> Result<Option<PathBuf>, Fatal> {
    let config = folder.config.as_ref();
    let named = config.and_then(|config| config.base_model.as_deref());
    let beside = resolve(&folder.folder).ok().and_then(|path| {
        let generations = path.parent()?;
        let is_published = generations.file_name()? == "generations";
        is_published.then(|| generations.parent().map(Path::to_path_buf))?
    });
    // From the form that a run prefers most to the one that it prefers least.
    let forms = BaseForm::ALL.into_iter().rev();
    let beside = forms.filter_map(|form| Some(form.served(beside.as_ref()?)));
    for path in named.map(PathBuf::from).into_iter().chain(beside) {
        if is_folder(&path)? || is_own_gguf(&path, folder.manifest.as_ref())? {
            return Ok(Some(path));
        }
    }
    let given = folder
        .manifest
        .as_ref()
        .and_then(|of| of.quantized.as_ref());
    if let Some(file) = given.map(|of| PathBuf::from(&of.path)) {
        if is_told_whole(&file, folder.manifest.as_ref())? {
            return Ok(Some(file));
        }
        findings.not_checked(format!(
            "whether the file that it corrects is the one that is served: {} is not there; --base \
             FILE names it",
            file.display()
        ));
        return Ok(None);
    }
    let belongs = folder.manifest.as_ref();
    let belongs = belongs.and_then(|manifest| manifest.fingerprints.base.as_deref());
    let named = named.unwrap_or("none");
    match (config, belongs) {
        (Some(_), Some(fingerprint)) => findings.problem(format!(
            "{CONFIG}: its base, {named} ({fingerprint}), is not there; --base DIR names it"
        )),
        (Some(_), None) => findings.not_checked(format!(
            "whether names and shapes are those of the model: {CONFIG} names as its base {named}, which is no folder here; --base DIR names it"
        )),
        (None, Some(fingerprint)) => findings.problem(format!(
            "{MANIFEST}: its base ({fingerprint}) is not there; --base names it"
        )),
        (None, None) => findings.not_checked(
            "whether names and shapes are those of the model: nothing says where it is; --base names it"
                .into(),
        ),
    }
    Ok(None)
}

/// The base that an adapter is served on where nobody names one; found as [`check`] finds it.
///
/// # Errors
/// [`Fatal::Io`] where the disk does not say what is there.
pub(crate) fn served_base(path: &Path) -> Result<Option<PathBuf>, Fatal> {
    // The check itself tells what is wrong with the files.
    let mut unsaid = Findings::default();
    let folder = AdapterFolder::open(path, &mut unsaid);
    named_base(&folder, &mut unsaid)
}

/// The modules that have a tensor in PEFT's file.
fn with_tensors(folder: &AdapterFolder) -> BTreeSet<&str> {
    let tensors = folder.tensors.iter();
    let names = tensors.flat_map(|tensors| tensors.pairs.keys());
    names.map(String::as_str).collect()
}

/// The modules of the model; without a model, those that the adapter itself names.
fn known_modules(
    folder: &AdapterFolder,
    model: Option<&ServedModel>,
    names: &ServedNames,
) -> KnownModules {
    if let Some(model) = model {
        let serving = folder.manifest.as_ref().map(|manifest| &manifest.serving);
        let modules = model.modules().into_iter();
        let modules = modules.filter(|module| serving.is_none_or(|of| of.has(module)));
        let mut known: BTreeSet<_> = modules.map(|module| names.served(module)).collect();
        if let Some(manifest) = folder.manifest.as_ref().filter(|_| model.is_gguf()) {
            // A GGUF has one name for modules that checkpoints have under several prefixes.
            let is_there = |layer: &&LayerClaim| {
                let weight = model.weight(&layer.name);
                matches!(weight, ServedWeight::Stored(_))
            };
            let layers = manifest.layers.iter().filter(is_there);
            known.extend(layers.map(|layer| layer.served_as().to_owned()));
        }
        return KnownModules {
            names: known,
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
