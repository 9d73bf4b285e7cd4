//! Checks that a given GGUF or packed folder is the one whose weights an adapter corrects.

use std::path::Path;

use crate::error::Fatal;
use crate::publish::base::RECORD;
use crate::publish::check::findings::Findings;
use crate::publish::check::gguf_base::is_own_gguf;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::check::own_keys::OwnKeys;
use crate::publish::manifest_seal::MANIFEST;
use crate::settings::gguf_path::is_gguf;
use crate::weights::gguf::file::GgufModel;
use crate::weights::packed::{PackedFolder, is_packed};

/// Whether a model is compared by the fingerprint of all that it holds. That is so for a GGUF, and
/// for a packed folder of another program where the adapter corrects such a folder. It is not so
/// for qera's own bases. Nor for an adapter that corrects a grid on any other GGUF, as a converter
/// makes of `OUT/base`: there one can see whether the numbers are on that grid.
///
/// # Errors
/// [`Fatal::Io`] where the disk does not say what is there.
pub(crate) fn is_told_whole(path: &Path, manifest: Option<&ManifestClaims>) -> Result<bool, Fatal> {
    let of_folder = |of: &ManifestClaims| of.settings.format.is_packed();
    let of_grid = |of: &ManifestClaims| {
        of.fingerprints.quantized.is_none() && of.settings.format.grid().is_ok()
    };
    if is_gguf(path)? {
        let is_other = manifest.is_some_and(of_grid) || is_own_gguf(path, manifest)?;
        return Ok(!is_other);
    }
    Ok(manifest.is_some_and(of_folder) && is_packed(path)?)
}

/// What is served, as a whole.
struct ServedWhole {
    what: &'static str,
    fingerprint: String,
}

impl ServedWhole {
    fn at(path: &Path) -> Result<Self, Fatal> {
        Ok(if is_gguf(path)? {
            Self {
                what: "file",
                fingerprint: GgufModel::open(path, &[])?.fingerprint(),
            }
        } else {
            Self {
                what: "folder",
                fingerprint: PackedFolder::open(path)?.fingerprint(),
            }
        })
    }
}

/// Compares one of qera's adapters with what it is served on, by the manifest or by the keys of the
/// GGUF adapter.
pub(crate) fn check_given(
    path: &Path,
    manifest: Option<&ManifestClaims>,
    keys: OwnKeys<'_>,
    findings: &mut Findings,
) {
    let path_said = path.display();
    let Some(manifest) = manifest else {
        return match keys.quantized() {
            Some(said) => check_fingerprint(path, said, findings),
            None if keys.are_any() => findings.not_checked(format!(
                "{path_said}: whether it is what {} belongs on, it has no {RECORD}",
                keys.file
            )),
            None => findings.not_checked(format!(
                "{path_said}: whether the adapter was made for it: without {MANIFEST} nobody can say"
            )),
        };
    };
    let Some(said) = &manifest.fingerprints.quantized else {
        return findings.problem(format!(
            "{path_said}: is a GGUF, the adapter corrects weights that were quantized by {}: it \
             would do harm",
            manifest.settings.format
        ));
    };
    check_fingerprint(path, said, findings);
}

fn check_fingerprint(path: &Path, said: &str, findings: &mut Findings) {
    let path_said = path.display();
    match ServedWhole::at(path) {
        Err(error) => findings.problem(format!("base: {error}")),
        Ok(ServedWhole { what, fingerprint }) => {
            if fingerprint != said {
                findings.problem(format!(
                    "{path_said}: is another {what} ({fingerprint}) than the one that the adapter \
                     corrects ({said}): it would do harm"
                ));
            }
        }
    }
}
