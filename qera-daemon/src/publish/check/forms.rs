//! Checks the forms of an adapter side by side: against the manifest, against each other, and
//! against the model.

use std::collections::BTreeMap;

use crate::publish::check::HeldAgainst;
use crate::publish::check::adapter_folder::AdapterFolder;
use crate::publish::check::base_files::check_base_files;
use crate::publish::check::belongs::{Layout, ServedPairs, check_base, check_shapes};
use crate::publish::check::claims::{check_claims, check_scales, check_zeros};
use crate::publish::check::equal_forms::check_equal;
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::{CheckedPair, FormPairs};
use crate::publish::check::gguf_base::check_gguf_base;
use crate::publish::check::packed::check_packed;
use crate::publish::check::served_model::{ServedModel, ServedWeight};
use crate::publish::check::served_names::ServedNames;
use crate::publish::manifest_seal::MANIFEST;
use crate::settings::publish::AdapterForm;

/// The pairs of each form; `None` where the form is not there, or has no file of tensors.
#[derive(Debug)]
pub(crate) struct Forms {
    /// The pairs of PEFT's form.
    pub(crate) peft: Option<FormPairs>,
    /// The pairs of the GGUF.
    pub(crate) gguf: Option<FormPairs>,
    /// The pairs of mlx-lm's form.
    pub(crate) mlx: Option<FormPairs>,
}

impl Forms {
    /// The forms that were looked into.
    pub(crate) fn all(&self) -> impl Iterator<Item = &FormPairs> {
        [&self.peft, &self.gguf, &self.mlx].into_iter().flatten()
    }

    /// Compares each form with the manifest, if there is one, and all forms with each other.
    pub(crate) fn check_claims(&self, folder: &AdapterFolder, findings: &mut Findings) {
        let Some(manifest) = &folder.manifest else {
            self.all().for_each(|form| check_zeros(form, findings));
            return;
        };
        for form in self.all() {
            check_claims(form, manifest, findings);
        }
        if let (Some(config), Some(form)) = (&folder.config, &self.peft) {
            check_scales(config, form, findings);
        }
        if !folder.is_whole {
            return;
        }
        for form in manifest.forms.difference(&folder.forms) {
            findings.problem(format!(
                "{MANIFEST}: says that the adapter is written as {}, which is not there",
                form.name()
            ));
        }
        for form in folder.forms.difference(&manifest.forms) {
            findings.problem(format!(
                "{MANIFEST}: does not say that the adapter is written as {}, which is there",
                form.name()
            ));
        }
        check_equal(&folder.folder, self.all(), manifest, findings);
    }

    /// Compares the shapes with those of the model, and the model with the manifest.
    pub(crate) fn check_on_model(
        &self,
        folder: &AdapterFolder,
        model: &ServedModel,
        against: HeldAgainst<'_>,
        findings: &mut Findings,
    ) {
        let manifest = folder.manifest.as_ref();
        let names = ServedNames::of(manifest);
        let of_layers = || manifest.is_some_and(|of| of.layers.iter().any(|l| l.transposed));
        let config = folder.config.as_ref();
        let transposed = config.map_or_else(of_layers, |of| of.transposed);
        // The tensors of a GGUF all lie one way, also those of Conv1D.
        let layout = Layout::of(transposed && !model.is_gguf(), manifest);
        // A GGUF adapter without a manifest is compared with a model's GGUF by tensor names.
        let is_by_tensors =
            |form: &&FormPairs| form.form == AdapterForm::Gguf && manifest.is_none();
        let forms = self.all();
        for form in forms.filter(|form| !(model.is_gguf() && is_by_tensors(form))) {
            let pairs = match (form.form, manifest) {
                (AdapterForm::Peft, _) => form.pairs.clone(),
                (_, Some(manifest)) => form.served(manifest),
                (_, None) => of_same_name(form, model, findings),
            };
            let served = ServedPairs {
                file: &form.file,
                pairs: &pairs,
            };
            check_shapes(model, &names, &layout, served, findings);
        }
        if manifest.is_none() && model.is_served() {
            findings.not_checked(format!(
                "{}: whether the adapter was made for it: without {MANIFEST} nobody can say",
                model.path.display()
            ));
        }
        if let Some(manifest) = manifest.filter(|_| model.is_served()) {
            check_base(model, manifest, &layout, findings);
            if !matches!(against, HeldAgainst::Own(_)) {
                check_base_files(model, manifest, findings);
                check_packed(model, findings);
                check_gguf_base(model, manifest, findings);
            }
        }
    }

    /// A description of what was checked.
    #[must_use]
    pub(crate) fn describe(&self, folder: &AdapterFolder, on: &str) -> String {
        let layers = self.all().map(|form| form.pairs.len()).max();
        let ranks = self.all().flat_map(|form| form.pairs.values());
        let rank = ranks.map(|pair| pair.rank).max();
        let names: Vec<_> = folder.forms.iter().map(|form| form.name()).collect();
        let forms = match names[..] {
            [] | ["peft"] => String::new(),
            _ => format!(" as {}", names.join(", ")),
        };
        format!(
            "{}: {} layers of rank {}{forms}, on {on}",
            folder.path.display(),
            layers.unwrap_or_default(),
            rank.unwrap_or_default()
        )
    }
}

/// Pairs of a foreign adapter whose names the model has. Only of qera's adapters it is known what
/// each form calls a layer.
fn of_same_name(
    form: &FormPairs,
    model: &ServedModel,
    findings: &mut Findings,
) -> BTreeMap<String, CheckedPair> {
    let is_there = |name: &String| matches!(model.weight(name), ServedWeight::Stored(_));
    let pairs = form.pairs.iter().filter(|(name, _)| is_there(name));
    let pairs: BTreeMap<_, _> = pairs.map(|(name, pair)| (name.clone(), *pair)).collect();
    let unknown = form.pairs.len() - pairs.len();
    if unknown > 0 {
        let more = match form.form {
            AdapterForm::Gguf => "; --base names the GGUF that it is served on",
            _ => "",
        };
        findings.not_checked(format!(
            "{}: whether {unknown} of its pairs fit the model: {} has other names{more}",
            form.file,
            model.path.display()
        ));
    }
    pairs
}
