//! Checks a GGUF that is one of qera's bases by its digest: a flipped bit gives another valid W~,
//! which no sample of a few rows would find.

use std::path::{Path, PathBuf};

use crate::disk::presence::is_folder;
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::publish::base::{BaseRecord, RECORD};
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::check::served_model::ServedModel;
use crate::settings::gguf_path::is_gguf;
use crate::settings::publish::GGUF_FILE;

/// The GGUF in a base's folder, where that folder was given; any other path as it is.
///
/// # Errors
/// [`Fatal::Io`] where the disk does not say what is there.
pub(crate) fn file_of_base(path: &Path) -> Result<PathBuf, Fatal> {
    Ok(match is_folder(path)? && is_gguf_base(path)? {
        true => path.join(GGUF_FILE),
        false => path.to_path_buf(),
    })
}

/// Whether a GGUF is one of qera's bases, because its record lies beside it or the adapter's
/// manifest names it. For an adapter that corrects a given file, a GGUF is that file, whoever made
/// it.
///
/// # Errors
/// As for [`file_of_base`].
pub(crate) fn is_own_gguf(path: &Path, manifest: Option<&ManifestClaims>) -> Result<bool, Fatal> {
    let corrects_given = manifest.is_some_and(|of| of.settings.format.is_given());
    if corrects_given || !is_gguf(path)? {
        return Ok(false);
    }
    let is_said = manifest.is_some_and(|of| of.gguf_base.is_some());
    Ok(is_said || path.parent().map_or(Ok(false), is_gguf_base)?)
}

/// Whether a folder has the record of a base that is a GGUF. A record that cannot be understood is
/// told when the model is opened.
fn is_gguf_base(folder: &Path) -> Result<bool, Fatal> {
    let record = read_if_there(&folder.join(RECORD))?;
    let record = record.and_then(|bytes| BaseRecord::parse(&bytes).ok());
    Ok(record.is_some_and(|record| record.gguf.is_some()))
}

/// Reads one of qera's GGUF bases whole and compares its digest. Other models are not looked at.
pub(crate) fn check_gguf_base(
    model: &ServedModel,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    if !model.is_gguf() {
        return;
    }
    let path = model.path.display();
    let record = model.record().and_then(|record| record.gguf.as_ref());
    let of_manifest = manifest.gguf_base.as_ref().map(|of| &of.blake3);
    let who = record.map_or("the adapter's manifest", |_| RECORD);
    let Some(said) = record.map(|of| &of.blake3).or(of_manifest) else {
        return;
    };
    match model.digest_of_file(&model.path) {
        Some(found) if found == *said => {}
        found => findings.problem(format!(
            "{path}: is not the file that {who} was written for ({} for {said}): the correction \
             would do harm",
            found.as_deref().unwrap_or("unread")
        )),
    }
}
