//! Whether a GGUF is the one whose weights an adapter corrects.

use std::path::Path;

use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::weights::gguf::file::GgufModel;

/// Holds an adapter of qera's against the GGUF that it is served on.
pub(crate) fn check_given(path: &Path, manifest: Option<&ManifestClaims>, findings: &mut Findings) {
    let Some(manifest) = manifest else {
        return findings.not_checked(format!(
            "{}: whether the adapter belongs on it: only a manifest of qera's says that",
            path.display()
        ));
    };
    let path_said = path.display();
    let Some(said) = &manifest.fingerprints.quantized else {
        return findings.problem(format!(
            "{path_said}: is a GGUF, the adapter corrects weights that were quantized by {}: it \
             would do harm",
            manifest.settings.format
        ));
    };
    match GgufModel::open(path, &[]) {
        Err(error) => findings.problem(format!("base: {error}")),
        Ok(model) => {
            let found = model.fingerprint();
            if found != *said {
                findings.problem(format!(
                    "{path_said}: is another file ({found}) than the one that the adapter corrects \
                     ({said}): it would do harm"
                ));
            }
        }
    }
}
