//! Checks PEFT's pairs: each is whole, of one rank, of a type that engines read, finite, and as
//! large as the configuration says.

use crate::formats::peft::config::PeftConfig;
use crate::formats::peft::tensors::{LoraPair, factor_name};
use crate::formats::safetensors::header::{Claim, float_dtype};
use crate::publish::check::adapter_folder::{AdapterFolder, TENSORS};
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::{CheckedPair, FormPairs};
use crate::settings::publish::AdapterForm;

/// Checks every pair in PEFT's files; `None` where these have no tensors.
pub(crate) fn check_factors(folder: &AdapterFolder, findings: &mut Findings) -> Option<FormPairs> {
    let tensors = folder.tensors.as_ref()?;
    let mut checked = FormPairs::new(AdapterForm::Peft, TENSORS.into());
    checked.with_tensors = tensors.pairs.keys().cloned().collect();
    if tensors.pairs.is_empty() {
        findings.problem(format!(
            "{TENSORS}: has no tensor base_model.model.NAME.lora_A.weight"
        ));
    }
    for (module, pair) in &tensors.pairs {
        if let Some(pair) = check_pair(folder, module, pair, findings) {
            if let Some(config) = &folder.config {
                check_rank(config, module, pair.rank, findings);
            }
            checked.pairs.insert(module.clone(), pair);
        }
    }
    for name in &tensors.others {
        let (dora, manifest) = match (&folder.config, &folder.manifest) {
            (Some(config), manifest) => (config.dora, manifest.is_some()),
            (None, manifest) => (false, manifest.is_some()),
        };
        let known = dora && name.contains("lora_magnitude_vector") && !manifest;
        if known {
            findings.not_checked(format!("{TENSORS}: tensor '{name}'"));
        } else {
            findings.problem(format!(
                "{TENSORS}: tensor '{name}' is neither base_model.model.NAME.lora_A.weight nor lora_B.weight"
            ));
        }
    }
    Some(checked)
}

fn check_pair(
    folder: &AdapterFolder,
    module: &str,
    pair: &LoraPair,
    findings: &mut Findings,
) -> Option<CheckedPair> {
    let a = check_factor(folder, module, 'A', pair.a.as_ref(), findings);
    let b = check_factor(folder, module, 'B', pair.b.as_ref(), findings);
    let (a, b) = a.zip(b)?;
    if a.rows != b.columns {
        findings.problem(format!(
            "{TENSORS}: {module}: A is [{}, {}] and B is [{}, {}]: their ranks differ",
            a.rows, a.columns, b.rows, b.columns
        ));
        return None;
    }
    Some(CheckedPair {
        in_features: a.columns,
        out_features: b.rows,
        rank: a.rows,
        a_is_zero: a.is_zero,
        b_is_zero: b.is_zero,
    })
}

struct Factor {
    rows: usize,
    columns: usize,
    is_zero: bool,
}

fn check_factor(
    folder: &AdapterFolder,
    module: &str,
    factor: char,
    claim: Option<&Claim>,
    findings: &mut Findings,
) -> Option<Factor> {
    let name = factor_name(module, factor);
    let mut problem = |what: String| {
        findings.problem(format!("{TENSORS}: tensor '{name}' {what}"));
        None
    };
    let Some(claim) = claim else {
        return problem("is missing, its other half is there".into());
    };
    let &[rows, columns] = &claim.shape[..] else {
        return problem(format!("is {:?}, no matrix", claim.shape));
    };
    if rows == 0 || columns == 0 {
        return problem(format!("is empty: {:?}", claim.shape));
    }
    let Some(dtype) = float_dtype(claim.dtype) else {
        return problem(format!("is {}; F32, F16 and BF16 are read", claim.dtype));
    };
    match folder.values(claim, dtype) {
        Err(error) => problem(format!("cannot be read: {error}")),
        Ok(values) => {
            if let Some(index) = values.not_finite {
                let (row, column) = (index / columns, index % columns);
                problem(format!("is NaN or infinite at [{row}, {column}]"));
            }
            Some(Factor {
                rows,
                columns,
                is_zero: values.zero,
            })
        }
    }
}

fn check_rank(config: &PeftConfig, module: &str, rank: usize, findings: &mut Findings) {
    if let Some(said) = config.rank_of(module).filter(|&said| said != rank) {
        findings.problem(format!(
            "{TENSORS}: {module}: its pair has rank {rank}, adapter_config.json says {said}"
        ));
    }
}
