//! The manifest's seal: the last field is BLAKE3 of every byte before it. So a torn or flipped
//! manifest is seen as damaged, whatever it says.

use serde::Serialize;
use serde_json::Value;

/// Name of the manifest.
pub(crate) const MANIFEST: &str = "qera_manifest.json";
/// The first version of a manifest that is sealed.
pub(crate) const FIRST_SEALED: u32 = 5;
/// The bytes before the digest,
const BEFORE: &str = ",\n  \"seal\": \"blake3:";
/// and the bytes behind it.
const BEHIND: &str = "\"\n}";
/// Number of BLAKE3's hexadecimal digits.
const DIGITS: usize = 64;

/// What a manifest's seal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManifestSeal {
    /// The manifest is what was written.
    Whole,
    /// The manifest is from before there were seals, so that nothing is known.
    Unsealed,
    /// The manifest is not what was written.
    Broken,
}

/// The bytes of a sealed manifest.
///
/// # Errors
/// The error of writing it as JSON.
pub(crate) fn sealed(manifest: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    // The object is opened again at its end, because the seal is its last field.
    bytes.truncate(bytes.len().saturating_sub("\n}".len()));
    let digest = blake3::hash(&bytes).to_hex();
    for part in [BEFORE, digest.as_str(), BEHIND] {
        bytes.extend_from_slice(part.as_bytes());
    }
    Ok(bytes)
}

/// Checks the seal of a manifest.
#[must_use]
pub(crate) fn seal_of(bytes: &[u8]) -> ManifestSeal {
    let end = bytes
        .len()
        .checked_sub(BEFORE.len() + DIGITS + BEHIND.len());
    let parts = end.map(|end| bytes.split_at(end));
    let found = parts.and_then(|(content, end)| {
        let digest = end.strip_prefix(BEFORE.as_bytes())?;
        Some((content, digest.strip_suffix(BEHIND.as_bytes())?))
    });
    match found {
        Some((content, digest)) if blake3::hash(content).to_hex().as_bytes() == digest => {
            ManifestSeal::Whole
        }
        Some(_) => ManifestSeal::Broken,
        None if is_of_before(bytes) => ManifestSeal::Unsealed,
        None => ManifestSeal::Broken,
    }
}

/// Whether a manifest without a seal never had one.
fn is_of_before(bytes: &[u8]) -> bool {
    let read = serde_json::from_slice::<Value>(bytes).ok();
    let manifest = read.as_ref().and_then(Value::as_object);
    manifest.is_some_and(|of| match of.get("manifest_version") {
        Some(version) => version.as_u64().is_some_and(|of| of < FIRST_SEALED.into()),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_bit_of_a_sealed_manifest_is_another() {
        let manifest = json!({"manifest_version": 5, "quantizer": "mxint4", "layers": []});
        let bytes = sealed(&manifest).unwrap();
        assert_eq!(seal_of(&bytes), ManifestSeal::Whole);
        let read: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read["quantizer"], "mxint4");
        assert!(read["seal"].as_str().unwrap().starts_with("blake3:"));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(
                    seal_of(&flipped),
                    ManifestSeal::Broken,
                    "byte {at} bit {bit}"
                );
            }
            assert_eq!(seal_of(&bytes[..at]), ManifestSeal::Broken, "cut at {at}");
        }
    }

    #[test]
    fn those_of_before_are_unsealed() {
        for manifest in [json!({"manifest_version": 4}), json!({"layers": [4]})] {
            let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
            assert_eq!(seal_of(&bytes), ManifestSeal::Unsealed);
            assert_eq!(seal_of(&bytes[1..]), ManifestSeal::Broken);
        }
        assert_eq!(seal_of(b""), ManifestSeal::Broken);
        assert_eq!(seal_of(b"[]"), ManifestSeal::Broken);
    }
}
