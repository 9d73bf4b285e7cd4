//! Checks a packed base by its digest: a changed code is another valid level, which no sample of a
//! few rows would find.

use std::path::Path;

use serde_json::Value;

use crate::publish::base::{MODEL, RECORD};
use crate::publish::check::findings::Findings;
use crate::publish::check::served_model::{ServedModel, ServedWeight};
use crate::publish::packed_base::layout::ignored;

/// How many characters of a value a message repeats.
const SAID: usize = 200;

/// Reads a packed base whole and compares its digest. Other models are not looked at.
pub(crate) fn check_packed(model: &ServedModel, findings: &mut Findings) {
    let path = model.path.display();
    let Some(packed) = model.record().and_then(|record| record.packed.as_ref()) else {
        return;
    };
    let expected = packed.config(&ignored(model.linear_modules()));
    match model.quantization() {
        Some(found) => {
            for differs in differences("quantization_config", found, &expected) {
                findings.problem(format!(
                    "{path}: config.json: {differs}: engines would read other weights"
                ));
            }
        }
        None => findings.problem(format!(
            "{path}: config.json has no quantization_config: engines look for weights in full"
        )),
    }
    let layers = model.record().map_or(&[][..], |record| &record.base.layers);
    let is_read = |layer: &&String| matches!(model.weight(layer), ServedWeight::Stored(_));
    for layer in layers.iter().filter(|layer| !is_read(layer)) {
        findings.problem(format!("{path}: '{layer}' is not packed as {RECORD} says"));
    }
    match model.digest_of_file(Path::new(MODEL)) {
        Some(found) if found == packed.blake3 => {}
        Some(found) => findings.problem(format!(
            "{path}: {MODEL} is not the file that {RECORD} was written for ({found} for {}): the correction would do harm",
            packed.blake3
        )),
        None => findings.problem(format!("{path}: has no {MODEL}, which {RECORD} speaks of")),
    }
}

/// How a configuration differs from the expected one, field by field.
fn differences(path: &str, found: &Value, expected: &Value) -> Vec<String> {
    let (Some(fields), Some(should)) = (found.as_object(), expected.as_object()) else {
        return list_differences(path, found, expected);
    };
    let null = Value::Null;
    let mut keys: Vec<&String> = fields.keys().chain(should.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let inside = keys.into_iter().flat_map(|key| {
        let path = format!("{path}.{key}");
        differences(
            &path,
            fields.get(key).unwrap_or(&null),
            should.get(key).unwrap_or(&null),
        )
    });
    inside.collect()
}

/// How two lists of names differ, whatever their order: names too many and names missing.
fn list_differences(path: &str, found: &Value, expected: &Value) -> Vec<String> {
    let (Some(list), Some(should)) = (found.as_array(), expected.as_array()) else {
        let said = || format!("{path} is {}, {expected} is expected", brief(found));
        return (found != expected).then(said).into_iter().collect();
    };
    let more = list.iter().filter(|of| !should.contains(of));
    let more = more.map(|of| format!("{path} has {}, which is packed or not there", brief(of)));
    let less = should.iter().filter(|of| !list.contains(of));
    let less = less.map(|of| format!("{path} lacks {of}, which stands there as numbers"));
    more.chain(less).collect()
}

/// The beginning of a value, since whoever changed it may have written anything.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(SAID).collect()
}
