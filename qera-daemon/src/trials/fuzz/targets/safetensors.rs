//! Headers of safetensors files, beside the crate that the format comes from.

use safetensors::tensor::Metadata;
use serde_json::Value;

use super::dressed;
use crate::formats::safetensors::header::Header;
use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::seeds::SEEDS;

pub(super) const HEADER: Target = Target {
    name: "safetensors",
    make,
    read,
};

/// A header behind its length.
pub(super) fn with_length(header: &Value) -> Vec<u8> {
    let json = serde_json::to_vec(header).unwrap();
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

fn make(draw: &mut Draw) -> Vec<u8> {
    dressed(draw.of(&SEEDS.headers), draw, with_length)
}

/// What the crate makes of the JSON; it does not ask whether the data are there.
fn their_reading(bytes: &[u8], header: u64) -> Option<Metadata> {
    let end = usize::try_from(header).ok()?.checked_add(8)?;
    serde_json::from_slice(bytes.get(8..end)?).ok()
}

/// Reads a header of a file that is as long as it says, and of ones that are not.
fn read(bytes: &[u8]) -> bool {
    let header = bytes.first_chunk().map_or(0, |of| u64::from_le_bytes(*of));
    let theirs = their_reading(bytes, header);
    let of_data = theirs.as_ref().map_or(0, Metadata::data_len);
    let found = header.saturating_add(8).saturating_add(of_data as u64);
    for wrong in [found.wrapping_add(1), found.wrapping_sub(1)] {
        assert!(Header::parse(bytes, wrong).is_err(), "of {wrong} bytes");
    }
    let Ok(ours) = Header::parse(bytes, found) else {
        return false;
    };
    // What we read, the crate reads as well, and the same.
    let theirs = theirs.unwrap();
    let tensors = theirs.tensors();
    assert_eq!(ours.claims.len(), tensors.len());
    for claim in &ours.claims {
        let info = tensors[&claim.key];
        assert_eq!((claim.dtype, &claim.shape), (info.dtype, &info.shape));
        let (from, to) = info.data_offsets;
        assert_eq!(claim.start, header + 8 + from as u64);
        assert_eq!(claim.bytes, to - from);
    }
    let metadata = theirs.metadata().clone().unwrap_or_default();
    assert_eq!(ours.metadata, metadata);
    true
}
