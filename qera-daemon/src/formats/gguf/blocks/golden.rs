//! Digests of what Python's `gguf` 0.19 reads in blocks, of `Q1_0` and `Q2_0` what ggml does: written by
//! `tests/gguf/blocks/write_golden.py`.

use crate::formats::gguf::block_type::BlockType;

/// Blocks of each type; their bytes are those of SplitMix64, whose seed is the type's number.
pub(super) const BLOCKS: usize = 64;

/// A type and what is read in its blocks.
pub(super) struct Golden {
    pub(super) of: BlockType,
    /// Bytes of a block whose second highest bit is cleared, so that every number is finite.
    pub(super) exponents: &'static [usize],
    /// BLAKE3 of the f32, in little-endian bytes.
    pub(super) digest: &'static str,
}

pub(super) const GOLDEN: [Golden; 28] = [
    Golden {
        of: BlockType::F32,
        exponents: &[3],
        digest: "7a818194cd1900a70a0cbacf7772ff019a1ee79d8c37c47c8243f52211d4372d",
    },
    Golden {
        of: BlockType::F16,
        exponents: &[1],
        digest: "e89644bb50daa49224ad69d206cdc4c4b564a72b9eeb2e7b218ad880461daf54",
    },
    Golden {
        of: BlockType::Q4_0,
        exponents: &[1],
        digest: "07731380233a08d33c5eeaa55944e3d6bbddde58614dc29c070bdb10e5c5d07c",
    },
    Golden {
        of: BlockType::Q4_1,
        exponents: &[1, 3],
        digest: "d2b86349c3d2aaa2ae454d8f1f6f3b49095e6e1503c99db4ac9cd2c6ed3fa25a",
    },
    Golden {
        of: BlockType::Q5_0,
        exponents: &[1],
        digest: "5fcf3b8f39beebc28ccfd001afe217a7e8f34d9fd96253ab5f76f078422365bd",
    },
    Golden {
        of: BlockType::Q5_1,
        exponents: &[1, 3],
        digest: "5d3797afba7313e7968c7330965083520a34b7236a6293e6561c1e46e3064b06",
    },
    Golden {
        of: BlockType::Q8_0,
        exponents: &[1],
        digest: "81fde763b078dc0369345b8564c1f472ef3aaa8c57f8ec2511e6f001187b7183",
    },
    Golden {
        of: BlockType::Q2_K,
        exponents: &[81, 83],
        digest: "1fc6dd5feb41f1d15ef894e86043f0bce45433701e6ea6320604c997c0abae19",
    },
    Golden {
        of: BlockType::Q3_K,
        exponents: &[109],
        digest: "35eb984a1f6ae72ef4a3997f63bbc0ac597d132fedbbb1b005a8623148265c96",
    },
    Golden {
        of: BlockType::Q4_K,
        exponents: &[1, 3],
        digest: "ca0a0e7fec9aa925b340685981306d173b2c49e10d6ae779c597ced813512592",
    },
    Golden {
        of: BlockType::Q5_K,
        exponents: &[1, 3],
        digest: "57f39ba38f0915b29c260d1bee98ae7a09834f67bfad2efb051aa13036d58c03",
    },
    Golden {
        of: BlockType::Q6_K,
        exponents: &[209],
        digest: "f05696f16f572489218ad46940c3f2ca059c2ba46709db40e5fca0d8f0a731c6",
    },
    Golden {
        of: BlockType::IQ2_XXS,
        exponents: &[1],
        digest: "d53fd62d0678053f466906333fc68538ea85d345b5eccd0e3664b0db47dbb433",
    },
    Golden {
        of: BlockType::IQ2_XS,
        exponents: &[1],
        digest: "74b7da5bcfcdd059b6c6866a6b040ae8d37c1e79bc7acbc0ae39045a0b710ce5",
    },
    Golden {
        of: BlockType::IQ3_XXS,
        exponents: &[1],
        digest: "b0724556082b13c469e1be495feb940800bbc9eb7b65f8e6664e757d7e2ab9a0",
    },
    Golden {
        of: BlockType::IQ1_S,
        exponents: &[1],
        digest: "2bea7b939cda6a02401ad56b7407657bdbe8da79c4fbd3a936a9970a17ab5036",
    },
    Golden {
        of: BlockType::IQ4_NL,
        exponents: &[1],
        digest: "f885412b5da700afcb5502c506f56936cb50692d8af45b66f5f655a796de9c0f",
    },
    Golden {
        of: BlockType::IQ3_S,
        exponents: &[1],
        digest: "439c182a899476bcce21d0d7f28186c4a57e30c20b15a4f4bd3d59989be5e908",
    },
    Golden {
        of: BlockType::IQ2_S,
        exponents: &[1],
        digest: "7be9927e0b15150f522a9c38cf1776343761b80b00bc1eb05dd3637775fd239e",
    },
    Golden {
        of: BlockType::IQ4_XS,
        exponents: &[1],
        digest: "f9c77514ca7b18f3278a122b5aadb85fe0d960337468c4b6b528bf9318bad8dd",
    },
    Golden {
        of: BlockType::IQ1_M,
        exponents: &[55],
        digest: "98a355af21766b05adf867bb1a9d2ee6d6c66dd837c32cc9a03cef9a28d169f3",
    },
    Golden {
        of: BlockType::BF16,
        exponents: &[1],
        digest: "e2773cd7e195e97de9bb8d96bda56cadb3e6906a4f0cdd7421131d19cb619615",
    },
    Golden {
        of: BlockType::TQ1_0,
        exponents: &[53],
        digest: "3d96043439d1fa8c122f760a9bd00b1b155d729928ec0f1fbf6171cc39e608e7",
    },
    Golden {
        of: BlockType::TQ2_0,
        exponents: &[65],
        digest: "b1ed77a7b57ff26b954a3e1640719a99493669214c299fefcdf6a8aa6f146c54",
    },
    Golden {
        of: BlockType::MXFP4,
        exponents: &[0],
        digest: "aa9c7df1ce0ca91c79ff620c19f291a532c36771cd7510fdffabb22bc2b6d669",
    },
    Golden {
        of: BlockType::NVFP4,
        exponents: &[],
        digest: "a6f7298589f22d28897fd36eef991c1392e230a8621ffa2c09c5a5570e356b0c",
    },
    Golden {
        of: BlockType::Q1_0,
        exponents: &[1],
        digest: "76ef958811182f82477ef479afec72a625362da526620736e6e09d9b2bfa434b",
    },
    Golden {
        of: BlockType::Q2_0,
        exponents: &[1],
        digest: "5420d6d01f29085043c21c5a497b781f7b4e4d1de88a4cf037170067373e4e49",
    },
];
