//! Checks that the files of a base are those that an adapter's manifest knows, by reading all of
//! them.

use crate::publish::base::MODEL;
use crate::publish::base_worth::README;
use crate::publish::check::adapter_folder::damaged;
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::check::served_model::ServedModel;
use crate::publish::generation_files::{Digests, MISSING, check_files};
use crate::settings::publish::{BaseForm, GGUF_FILE};

/// Compares every file of one of qera's bases with the manifest. Weights whose digest the base's
/// record has are compared with that record. The files of another base are not damaged: what
/// `check_base` says of its record is all that is wrong with them.
pub(crate) fn check_base_files(
    model: &ServedModel,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    let (Some(record), Some(folder)) = (model.record(), model.folder()) else {
        return;
    };
    let own = manifest.fingerprints.base.as_ref();
    if own.is_some_and(|own| *own != record.base.fingerprint()) {
        return;
    }
    let (form, by_record) = match (&record.packed, &record.gguf) {
        (Some(_), _) => (BaseForm::CompressedTensors, Some(MODEL)),
        (_, Some(_)) => (BaseForm::Gguf, Some(GGUF_FILE)),
        (None, None) => (BaseForm::HuggingFace, None),
    };
    let Some(said) = manifest.bases.get(form.folder()) else {
        return;
    };
    let files = said
        .iter()
        .map(|(name, file)| (name.clone(), file.digest.clone()));
    let mut files: Digests = files.collect();
    files.retain(|name, _| Some(name.as_str()) != by_record);
    match check_files(folder, &files) {
        Ok(files) => {
            // The file that tells a person about the base need not go where the base is served.
            let is_needed = |name: &str, how: &str| name != README || how != MISSING;
            for of in files.iter().filter(|of| is_needed(&of.name, &of.how)) {
                let name = folder.join(&of.name).display().to_string();
                findings.problem(damaged(&name, &of.how));
            }
        }
        Err(error) => findings.problem(error.to_string()),
    }
}
