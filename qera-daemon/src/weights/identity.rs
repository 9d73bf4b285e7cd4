//! Which checkpoint it is, whatever of it is selected: the fingerprint that an output folder and a
//! state are held against.
//!
//! It is made of name, type and shape of every tensor, and of some of its bytes: pieces, evenly
//! spaced from its first byte to its last. All of them would be to read a model of many gigabytes
//! once more at every start. A fine-tuned model differs from its origin nearly everywhere in the
//! tensors that were trained, one with LoRA merged into it too, and each tensor is looked at: where
//! only one value in ten thousand changed, a model of 200 tensors is told apart all but surely.
//! What may be missed is an edit of a few rows by hand; no number suffers from that, because
//! evidence and base belong to the fingerprint of all bytes of the selected weights besides.

use crate::weights::checkpoint::Checkpoint;

/// Pieces of a tensor, and their bytes; a tensor that is no larger is taken whole.
const PIECES: usize = 8;
const PIECE_BYTES: usize = 1 << 10;

impl Checkpoint {
    /// Tells this checkpoint from others: BLAKE3 over name, type and shape of every tensor and some
    /// pieces of its bytes.
    #[must_use]
    pub(crate) fn identity(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &self.tensors {
            let (dtype, shape) = (tensor.dtype, &tensor.shape);
            hasher.update(format!("{name}\0{dtype}\0{shape:?}\0").as_bytes());
            for piece in pieces(self.bytes(tensor)) {
                hasher.update(piece);
            }
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }
}

fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    if bytes.len() <= PIECES * PIECE_BYTES {
        return vec![bytes];
    }
    let last = bytes.len() - PIECE_BYTES;
    let starts = (0..PIECES).map(|piece| last / (PIECES - 1) * piece);
    let starts = starts.take(PIECES - 1).chain([last]);
    starts
        .map(|start| &bytes[start..start + PIECE_BYTES])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_or_lie_from_the_first_byte_to_the_last() {
        let bytes: Vec<u8> = (0..1_u32 << 20)
            .map(|i| (i / 4099).to_le_bytes()[0])
            .collect();
        let small = &bytes[..PIECES * PIECE_BYTES];
        assert_eq!(pieces(small), [small]);
        let found = pieces(&bytes);
        assert_eq!(found.len(), PIECES);
        assert!(found.iter().all(|piece| piece.len() == PIECE_BYTES));
        assert_eq!(found[0], &bytes[..PIECE_BYTES]);
        assert_eq!(found[PIECES - 1], &bytes[bytes.len() - PIECE_BYTES..]);
        // Evenly: the fourth begins at three sevenths.
        let start = (bytes.len() - PIECE_BYTES) / 7 * 3;
        assert_eq!(found[3], &bytes[start..start + PIECE_BYTES]);
    }
}
