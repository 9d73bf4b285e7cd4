//! What a generation says of itself, and the status.

use serde_json::Value;

use super::{dressed, plain};
use crate::formats::peft::config::PeftConfig;
use crate::observe::status::Status;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::current::Current;
use crate::publish::generation_files::GenerationRecord;
use crate::publish::manifest_seal::{ManifestSeal, seal_of, sealed};
use crate::trials::fuzz::Target;
use crate::trials::fuzz::seeds::SEEDS;
use crate::trials::small_run::LAYERS;

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    make: |draw| {
        dressed(&SEEDS.manifest, draw, |manifest| {
            let mut manifest = manifest.clone();
            // The daemon seals objects alone.
            let Some(fields) = manifest.as_object_mut() else {
                return plain(&manifest);
            };
            fields.remove("seal");
            sealed(&manifest).unwrap()
        })
    },
    read: read_manifest,
};
pub(super) const ADAPTER_CONFIG: Target = Target {
    name: "adapter-config",
    make: |draw| dressed(&SEEDS.adapter, draw, plain),
    read: read_adapter_config,
};
pub(super) const STATUS: Target = Target {
    name: "status",
    make: |draw| dressed(&SEEDS.status, draw, plain),
    read: read_status,
};

fn read_manifest(bytes: &[u8]) -> bool {
    let seal = seal_of(bytes);
    let value = serde_json::from_slice::<Value>(bytes);
    if seal == ManifestSeal::Whole {
        // The seal is the digest of every byte before it, by another way to find it.
        let text = core::str::from_utf8(bytes).unwrap();
        let (content, end) = text.rsplit_once(",\n  \"seal\": \"blake3:").unwrap();
        let digest = blake3::hash(content.as_bytes()).to_hex();
        assert_eq!(end.strip_suffix("\"\n}"), Some(digest.as_str()));
    }
    let record = serde_json::from_slice::<GenerationRecord>(bytes);
    let claims = ManifestClaims::parse(bytes);
    let current = Current::parse(bytes);
    if seal != ManifestSeal::Broken && (record.is_ok() || claims.is_ok() || current.is_some()) {
        // In a broken one a field that nobody asks for may hold what is no value.
        assert!(value.is_ok());
    }
    if seal == ManifestSeal::Broken {
        assert!(
            current.is_none(),
            "nothing is gone by what is not what was written"
        );
    }
    seal == ManifestSeal::Whole && claims.is_ok() && current.is_some()
}

fn read_adapter_config(bytes: &[u8]) -> bool {
    let Ok(config) = PeftConfig::parse(bytes) else {
        return false;
    };
    for (name, _) in LAYERS {
        let scale = config.scale_of(name);
        assert!(scale.is_none() || config.rank_of(name).is_some());
        let _ = config.entry_of(name);
    }
    config.problems.is_empty()
}

fn read_status(bytes: &[u8]) -> bool {
    let Ok(status) = Status::parse(bytes) else {
        return false;
    };
    let written = serde_json::to_vec(&status).unwrap();
    let again = Status::parse(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    let table = status.table();
    assert!(
        !table.chars().any(|c| c.is_control() && c != '\n'),
        "{table:?}"
    );
    true
}
