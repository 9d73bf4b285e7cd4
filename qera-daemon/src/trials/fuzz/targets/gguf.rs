//! GGUF files: headers are written again and read back; adapters and importance matrices too.

use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::lora::LoraGguf;
use crate::formats::gguf::lora_matrix::LoraMatrix;
use crate::formats::gguf::writer::{GgufTensorPlan, GgufWriter, MetadataBytes};
use crate::formats::imatrix::Imatrix;
use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::mutation::{mutate_bytes, times};
use crate::trials::fuzz::seeds::{GGUF, LEGACY_IMATRIX};

pub(super) const HEADER: Target = Target {
    name: "gguf",
    make: |draw| {
        let file = *draw.of(&GGUF);
        mutated(file, draw)
    },
    read: read_header,
};
pub(super) const ADAPTER: Target = Target {
    name: "gguf-adapter",
    make: |draw| mutated(GGUF[1], draw),
    read: read_adapter,
};
pub(super) const IMATRIX: Target = Target {
    name: "imatrix",
    make: |draw| {
        let file = *draw.of(&[GGUF[2], LEGACY_IMATRIX]);
        mutated(file, draw)
    },
    read: read_imatrix,
};

fn mutated(file: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..times(draw) {
        let other = *draw.of(&GGUF);
        mutate_bytes(&mut bytes, other, draw);
    }
    bytes
}

fn read_header(bytes: &[u8]) -> bool {
    let without_data = GgufHeader::parse_without_data(bytes).is_ok();
    let Ok(header) = GgufHeader::parse(bytes) else {
        return false;
    };
    assert!(without_data);
    let mut end_of = Vec::new();
    for tensor in &header.tensors {
        let length = tensor.bytes.unwrap_or(0) as u64;
        assert!(tensor.start + length <= bytes.len() as u64, "{tensor:?}");
        assert_eq!(tensor.start % header.alignment, 0, "{tensor:?}");
        end_of.push([tensor.start, tensor.start + length]);
    }
    end_of.sort_unstable();
    assert!(end_of.windows(2).all(|pair| pair[0][1] <= pair[1][0]));
    written_again(bytes, &header);
    true
}

/// What has a known size is written again; what is read then says the same.
fn written_again(bytes: &[u8], header: &GgufHeader<'_>) {
    let plan = |of: &TensorClaim| GgufTensorPlan {
        name: of.name.clone(),
        ne: of.ne.clone(),
        type_number: of.type_number,
    };
    let plans: Vec<_> = header.tensors.iter().map(plan).collect();
    let mut metadata = MetadataBytes::default();
    let entries = header.metadata.as_they_lie();
    entries.iter().for_each(|entry| metadata.copy(entry));
    // Refused are names that are too long for llama.cpp, and types without a known size.
    let Ok(mut writer) = GgufWriter::begin_with(Vec::new(), &metadata, &plans) else {
        return;
    };
    for tensor in &header.tensors {
        let start = usize::try_from(tensor.start).unwrap();
        writer
            .tensor(&bytes[start..start + tensor.bytes.unwrap()])
            .unwrap();
    }
    let again = writer.finish().unwrap();
    let again = GgufHeader::parse(&again).unwrap();
    let said = |header: &GgufHeader<'_>| -> Vec<_> {
        let each = header.tensors.iter();
        each.map(|of| (of.name.clone(), of.ne.clone(), of.type_number, of.bytes))
            .collect()
    };
    assert_eq!(said(&again), said(header));
    assert_eq!(again.alignment, header.alignment);
    let kept = again.metadata.as_they_lie();
    assert_eq!(kept.len(), entries.len());
    assert!(
        kept.iter()
            .zip(&entries)
            .all(|(one, other)| one.bytes == other.bytes)
    );
}

fn read_adapter(bytes: &[u8]) -> bool {
    let Ok(adapter) = LoraGguf::parse(bytes) else {
        return false;
    };
    for pair in adapter.pairs.values() {
        for claim in [&pair.a, &pair.b].into_iter().flatten() {
            if let Ok(matrix) = LoraMatrix::read(bytes, claim) {
                assert_eq!(matrix.values.len(), matrix.rows * matrix.columns);
            }
        }
    }
    assert!(!adapter.scale(4).is_nan());
    adapter.problems.is_empty()
}

fn read_imatrix(bytes: &[u8]) -> bool {
    let Ok(imatrix) = Imatrix::parse(bytes) else {
        return false;
    };
    if let Ok(written) = imatrix.write() {
        let again = Imatrix::parse(&written).unwrap();
        assert_eq!(again.entries.len(), imatrix.entries.len());
        for (name, entry) in &imatrix.entries {
            let kept = &again.entries[name];
            assert_eq!(kept.matrices(), entry.matrices());
            assert_eq!(kept.width(), entry.width());
        }
        assert_eq!(again.write().unwrap(), written, "a fixed point");
    }
    true
}
