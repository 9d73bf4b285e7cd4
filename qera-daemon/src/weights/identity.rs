//! The identity of a checkpoint, whichever layers are selected. Output folders and states are
//! compared by it.
//!
//! It is made from name, type and shape of every tensor, and from some of its bytes: pieces, evenly
//! spaced from the first byte to the last. To take all bytes would be to read many gigabytes again
//! at every start. A fine-tuned model differs from its origin nearly everywhere in the tensors that
//! were trained, also with LoRA merged in, and each tensor is looked at: if only one value in ten
//! thousand changed, a model of 200 tensors is still told apart all but surely. An edit of a few
//! rows by hand may be missed. No figure suffers from that, because evidence and base also belong
//! to the fingerprint of all bytes of the selected weights.

use crate::weights::checkpoint::Checkpoint;

/// The number of pieces of a tensor, and the bytes of each. A smaller tensor is taken whole.
const PIECES: usize = 8;
const PIECE_BYTES: usize = 1 << 10;

impl Checkpoint {
    /// The checkpoint's identity: BLAKE3 over name, type and shape of every tensor and some pieces
    /// of its bytes.
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
        // The pieces are evenly spaced: the fourth begins at three sevenths.
        let start = (bytes.len() - PIECE_BYTES) / 7 * 3;
        assert_eq!(found[3], &bytes[start..start + PIECE_BYTES]);
    }
}
