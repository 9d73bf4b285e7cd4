//! Whether the files of a packed base are those that were written: a code that is another one is a
//! level, too, and no sample of a few rows finds it.

use crate::publish::base::{MODEL, RECORD};
use crate::publish::check::findings::Findings;
use crate::publish::check::served_model::{ServedModel, ServedWeight};

/// Reads a packed base whole; nothing is said of another model.
pub(crate) fn check_packed(model: &ServedModel, findings: &mut Findings) {
    let path = model.path.display();
    let Some(packed) = model.record().and_then(|record| record.packed.as_ref()) else {
        return;
    };
    if !model.says_that_it_is_quantized() {
        findings.problem(format!(
            "{path}: config.json has no quantization_config: engines look for weights in full"
        ));
    }
    let layers = model.record().map_or(&[][..], |record| &record.base.layers);
    let is_read = |layer: &&String| matches!(model.weight(layer), ServedWeight::Stored(_));
    for layer in layers.iter().filter(|layer| !is_read(layer)) {
        findings.problem(format!("{path}: '{layer}' is not packed as {RECORD} says"));
    }
    match model.digest_of_file(MODEL) {
        Some(found) if found == packed.blake3 => {}
        Some(found) => findings.problem(format!(
            "{path}: {MODEL} is not the file that {RECORD} was written for ({found} for {}): the correction would do harm",
            packed.blake3
        )),
        None => findings.problem(format!("{path}: has no {MODEL}, which {RECORD} speaks of")),
    }
}
