//! Checks that `target_modules` targets exactly the modules that have tensors. A target too many is
//! wrapped around zeros or refused, and a missing one is silently left out.

use std::collections::BTreeSet;

use crate::formats::peft::config::PeftConfig;
use crate::formats::peft::targets::Targets;
use crate::publish::check::adapter_folder::CONFIG;
use crate::publish::check::findings::Findings;

/// The modules of the served model, under its own names.
#[derive(Debug)]
pub(crate) struct KnownModules {
    /// The modules that are known.
    pub(crate) names: BTreeSet<String>,
    /// Whether these are all modules of the model.
    pub(crate) complete: bool,
}

/// Compares the configuration with the modules that have tensors. An entry that targets nothing is
/// a problem in qera's own adapters (`strict`); in others it is harmless.
pub(crate) fn check_targets(
    config: &PeftConfig,
    with_tensors: &BTreeSet<&str>,
    modules: &KnownModules,
    strict: bool,
    findings: &mut Findings,
) {
    if !config.targets_are_known {
        return;
    }
    for module in with_tensors {
        if config.entry_of(module).is_none() {
            findings.problem(format!(
                "{CONFIG}: no entry of target_modules means {module}, whose tensors would not be loaded"
            ));
        }
    }
    let mut met = BTreeSet::new();
    for module in &modules.names {
        let Some(entry) = config.entry_of(module) else {
            continue;
        };
        met.insert(entry);
        if !with_tensors.contains(module.as_str()) {
            findings.problem(format!(
                "{CONFIG}: '{entry}' of target_modules also means {module}, which has no tensors"
            ));
        }
    }
    if let Some(Targets::Listed(entries)) = &config.targets
        && modules.complete
    {
        for entry in entries.iter().filter(|entry| !met.contains(entry)) {
            let message = format!("{CONFIG}: '{entry}' of target_modules means no module");
            if strict {
                findings.problem(message);
            } else {
                findings.note(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(targets: &Value, with_tensors: &[&str], strict: bool) -> String {
        let config =
            json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": targets});
        let config = PeftConfig::parse(config.to_string().as_bytes()).unwrap();
        let names = ["m", "m.0", "m.0.q", "m.1.q", "m.1.v", "head.0"];
        let modules = KnownModules {
            names: names.map(str::to_owned).into(),
            complete: true,
        };
        let with_tensors = with_tensors.iter().copied().collect();
        let mut findings = Findings::default();
        check_targets(&config, &with_tensors, &modules, strict, &mut findings);
        findings.text()
    }

    #[test]
    fn targets_mean_what_has_tensors() {
        let both = ["m.0.q", "m.1.q"];
        for targets in [json!(["q"]), json!(["m.0.q", "1.q"]), json!(".*q")] {
            assert!(
                found(&targets, &both, true).starts_with("holds"),
                "{targets}"
            );
        }
        for (targets, with_tensors, said) in [
            (
                json!(["q"]),
                &both[..1],
                "'q' of target_modules also means m.1.q,",
            ),
            (
                json!(["m.1.q"]),
                &both[..],
                "no entry of target_modules means m.0.q,",
            ),
            (
                json!(["q", "w"]),
                &both[..],
                "'w' of target_modules means no module",
            ),
            (json!("m.0.q"), &both[..], "means m.1.q"),
            // A last name that is a number would target a decoder layer as well.
            (
                json!(["0"]),
                &["head.0"][..],
                "'0' of target_modules also means m.0,",
            ),
        ] {
            let text = found(&targets, with_tensors, true);
            assert!(
                text.contains(said) && text.ends_with("fails: 1 problems; \n"),
                "{text}"
            );
        }
        let foreign = found(&json!(["q", "w"]), &both, false);
        assert!(
            foreign.starts_with("note: ") && foreign.contains("'w'"),
            "{foreign}"
        );
    }
}
