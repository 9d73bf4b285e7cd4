//! The keys that qera writes into its GGUF adapters. By these, a file that was taken out of its
//! generation can still be told from one for another model.

use std::collections::BTreeMap;

use crate::formats::gguf::error::Quoted;
use crate::formats::gguf::lora::FINGERPRINT;
use crate::publish::base::RECORD;
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::check::served_model::ServedModel;
use crate::publish::manifest::Fingerprints;
use crate::publish::manifest_seal::MANIFEST;

/// qera's own keys in a GGUF adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnKeys<'a> {
    /// The file's name in messages.
    pub(crate) file: &'a str,
    /// The keys' values, by what they are about.
    pub(crate) said: &'a BTreeMap<&'static str, String>,
}

impl OwnKeys<'_> {
    /// The file that the adapter corrects, where W~ was given.
    #[must_use]
    pub(crate) fn quantized(&self) -> Option<&str> {
        self.of("quantized")
    }

    /// Whether qera wrote the file.
    #[must_use]
    pub(crate) fn are_any(&self) -> bool {
        !self.said.is_empty()
    }

    fn of(&self, name: &str) -> Option<&str> {
        self.said.get(name).map(String::as_str)
    }

    /// Compares the keys with the manifest of the generation that the file lies in, or else with
    /// the model that it is served on.
    pub(crate) fn check(
        &self,
        manifest: Option<&ManifestClaims>,
        model: Option<&ServedModel>,
        findings: &mut Findings,
    ) {
        if !self.are_any() {
            return;
        }
        match (manifest, model.filter(|model| model.is_served())) {
            (Some(manifest), _) => self.check_beside(&manifest.fingerprints, findings),
            (None, Some(model)) => self.check_on(model, findings),
            (None, None) => {}
        }
    }

    fn check_beside(&self, manifest: &Fingerprints, findings: &mut Findings) {
        let Fingerprints {
            checkpoint,
            model,
            settings,
            names,
            base,
            rounded,
            quantized,
            imatrix,
        } = manifest;
        let optional = [
            ("model", model),
            ("names", names),
            ("base", base),
            ("rounded", rounded),
            ("quantized", quantized),
            ("imatrix", imatrix),
        ];
        let always = [("checkpoint", checkpoint), ("settings", settings)];
        let always = always.map(|(name, said)| (name, Some(said.as_str())));
        let optional = optional.map(|(name, said)| (name, said.as_deref()));
        for (name, of_manifest) in always.into_iter().chain(optional) {
            let own = self.of(name);
            if own != of_manifest {
                let none = "none";
                findings.problem(format!(
                    "{}: {FINGERPRINT}{name} is {}, {MANIFEST} says {}: it is the file of another \
                     adapter",
                    self.file,
                    Quoted::new(own.unwrap_or(none)),
                    of_manifest.unwrap_or(none)
                ));
            }
        }
    }

    fn check_on(&self, model: &ServedModel, findings: &mut Findings) {
        let (file, path) = (self.file, model.path.display());
        let Some(record) = model.record() else {
            let own = self.of("model");
            return match own.is_some() && model.identity().as_deref() == own {
                true => findings.problem(format!(
                    "{path}: is the model in full precision by {FINGERPRINT}model of {file}: the \
                     adapter would do harm"
                )),
                false => findings.not_checked(format!(
                    "{path}: whether it is what {file} belongs on, it has no {RECORD}"
                )),
            };
        };
        let base = record.base.fingerprint();
        let held = [
            ("checkpoint", Some(record.base.checkpoint.as_str())),
            ("rounded", record.base.digest()),
            ("base", Some(base.as_str())),
        ];
        for (name, found) in held {
            // An adapter that was published without a base has no fingerprint of one.
            let own = self.of(name);
            if own != found && !(name == "base" && own.is_none()) {
                let none = "none";
                return findings.problem(format!(
                    "{path}: its {name} is {}, {FINGERPRINT}{name} of {file} is {}: the adapter \
                     would do harm",
                    found.unwrap_or(none),
                    Quoted::new(own.unwrap_or(none))
                ));
            }
        }
    }
}
