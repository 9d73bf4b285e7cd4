//! Checks an adapter in mlx-lm's form: what would fail there, and what mlx-lm would silently leave
//! out.

use std::path::Path;

use crate::disk::read;
use crate::formats::mlx::config::{MlxConfig, block_path};
use crate::formats::mlx::{CONFIG, TENSORS};
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::{CheckedPair, FormPairs};
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::written::tensor_file::MlxFile;
use crate::settings::publish::AdapterForm;

/// Checks every pair of a folder; `called` is its name in messages.
pub(crate) fn check_mlx(
    called: &str,
    folder: &Path,
    manifest: Option<&ManifestClaims>,
    findings: &mut Findings,
) -> FormPairs {
    let join = |file: &str| match called {
        "" => file.to_owned(),
        _ => format!("{called}/{file}"),
    };
    let mut found = FormPairs::new(AdapterForm::Mlx, join(TENSORS));
    let config = read_config(&join(CONFIG), folder, findings);
    let file = match MlxFile::open(folder) {
        Ok(file) => file,
        Err(error) => {
            findings.problem(format!("{}: {error}", found.file));
            return found;
        }
    };
    for name in &file.tensors.others {
        findings.problem(format!(
            "{}: tensor '{name}' is neither NAME.lora_a nor NAME.lora_b",
            found.file
        ));
    }
    if file.tensors.pairs.is_empty() {
        findings.problem(format!("{}: has no tensor NAME.lora_a", found.file));
    }
    for module in file.tensors.pairs.keys() {
        let pair = file.pair(module).map(|pair| CheckedPair::of(&pair));
        found.enter(module, pair, findings);
    }
    if let Some(config) = config {
        check_config(&join(CONFIG), &config, &found, findings);
        check_scale(&join(CONFIG), &config, manifest, findings);
    }
    found
}

/// Checks that mlx-lm scales no pair, since qera's corrections are applied as they are.
fn check_scale(
    file: &str,
    config: &MlxConfig,
    manifest: Option<&ManifestClaims>,
    findings: &mut Findings,
) {
    let scale = config.scale.filter(|_| manifest.is_some());
    if let Some(scale) = scale.filter(|scale| (scale - 1.0).abs() > 1e-9) {
        findings.problem(format!(
            "{file}: scale is {scale}, qera makes corrections for a scale of 1"
        ));
    }
}

/// Checks the rank, and that mlx-lm will give its tensors to every module that has some.
fn check_config(file: &str, config: &MlxConfig, found: &FormPairs, findings: &mut Findings) {
    let blocks = found.with_tensors.iter().filter_map(|m| block_path(m));
    let last = blocks.map(|of| of.block).max();
    // The model has at least this many blocks. If it has more, `num_layers` reaches fewer of these.
    let blocks = last.map(|last| last.saturating_add(1));
    for (module, pair) in &found.pairs {
        if let Some(rank) = config.rank.filter(|&rank| rank != pair.rank) {
            findings.problem(format!(
                "{}: {module}: its pair has rank {}, {file} says {rank}",
                found.file, pair.rank
            ));
        }
        if !config.reaches(module, blocks) {
            findings.problem(format!(
                "{file}: neither keys nor num_layers reach {module}, so that mlx-lm refuses its tensors"
            ));
        }
    }
}

fn read_config(name: &str, folder: &Path, findings: &mut Findings) -> Option<MlxConfig> {
    match read(&folder.join(CONFIG)).map(|bytes| MlxConfig::parse(&bytes)) {
        Err(error) => findings.problem(format!("{name}: {error}")),
        Ok(Err(error)) => findings.problem(format!("{name}: not JSON: {error}")),
        Ok(Ok(config)) => {
            for problem in &config.problems {
                findings.problem(format!("{name}: {problem}"));
            }
            for unchecked in &config.unchecked {
                findings.not_checked(format!("{name}: {unchecked}"));
            }
            return Some(config);
        }
    }
    None
}
