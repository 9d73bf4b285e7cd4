//! Digests of what Python's `gguf` 0.19 decodes from blocks (for `Q1_0` and `Q2_0`: what ggml
//! does), written by `tests/gguf/blocks/write_golden.py`.

use crate::formats::gguf::block_type::BlockType;

/// The number of blocks of each type. Their bytes are from SplitMix64, seeded with the type's
/// number.
pub(super) const BLOCKS: usize = 512;

/// A type, and the digest of its decoded blocks.
pub(super) struct Golden {
    pub(super) of: BlockType,
    /// The bytes of a block whose second highest bit is cleared, so that every number is finite.
    pub(super) exponents: &'static [usize],
    /// BLAKE3 of the decoded numbers, as little-endian f32.
    pub(super) digest: &'static str,
}

pub(super) const GOLDEN: [Golden; 28] = [
    Golden {
        of: BlockType::F32,
        exponents: &[3],
        digest: "3840891be7e8948f976fd68b5a1ad32a533103d21b487b7db62e7559d4daea31",
    },
    Golden {
        of: BlockType::F16,
        exponents: &[1],
        digest: "47eba533883f54cd827315002d8820eb39968ceb8361cc58d62a553999ba3003",
    },
    Golden {
        of: BlockType::Q4_0,
        exponents: &[1],
        digest: "73da80d05e35620a17486f1a508c9d4839862383811587d6191c38a7ba408e3d",
    },
    Golden {
        of: BlockType::Q4_1,
        exponents: &[1, 3],
        digest: "1a7fc256574fe8ce18d29fc98169a5676d4a83f92091760313f535409bbab320",
    },
    Golden {
        of: BlockType::Q5_0,
        exponents: &[1],
        digest: "015fb9a4a565592aa833e2c43d38013d965ef2e70391e8aa482fe78a7ab55d88",
    },
    Golden {
        of: BlockType::Q5_1,
        exponents: &[1, 3],
        digest: "41848dc49bcfa073300112c84a7c4e125e5b8cedc309f2b544c1a0ad8b91377d",
    },
    Golden {
        of: BlockType::Q8_0,
        exponents: &[1],
        digest: "a9d361141bb29ea546128f6d16e81b39a5a208f8dd72922d8099edcac41b7aa0",
    },
    Golden {
        of: BlockType::Q2_K,
        exponents: &[81, 83],
        digest: "a087df1f2a3f874e5b48cf987775c4238546318616b31ce6e39c73487af4cdd4",
    },
    Golden {
        of: BlockType::Q3_K,
        exponents: &[109],
        digest: "4af9b4ba0f7b74c844546fa50c6e463004b29b1767ccbb94aba34bf738576514",
    },
    Golden {
        of: BlockType::Q4_K,
        exponents: &[1, 3],
        digest: "98ae28d805cc49d2184adafa1bed612f0e17bdfb9b821293e59af63132fc1785",
    },
    Golden {
        of: BlockType::Q5_K,
        exponents: &[1, 3],
        digest: "ca71ded4e560744ecbb929259037c85673ebce1bb225c3d220085aebb558adaa",
    },
    Golden {
        of: BlockType::Q6_K,
        exponents: &[209],
        digest: "a1d43dba9110583c2a2205b15fc49cdeeddfd50e6213caded71515dd9d9a1f62",
    },
    Golden {
        of: BlockType::IQ2_XXS,
        exponents: &[1],
        digest: "1d616f09b2cb3a06628df960f041b8e52bfa386d940fe1569c6e6482049a9e07",
    },
    Golden {
        of: BlockType::IQ2_XS,
        exponents: &[1],
        digest: "6eb0c7ae30005c2be42ad105841c90e19650a546847a21a206d37e9a500a3560",
    },
    Golden {
        of: BlockType::IQ3_XXS,
        exponents: &[1],
        digest: "ff175d588e9c31da268a5b7f4959ba65903af5fc4dc54d1ce356d2d494c33bc4",
    },
    Golden {
        of: BlockType::IQ1_S,
        exponents: &[1],
        digest: "6aebf158fb17024f11f5082189aa65c2427c373eb8cba282f9ecc0abc22129d4",
    },
    Golden {
        of: BlockType::IQ4_NL,
        exponents: &[1],
        digest: "82114f24951585a5f5c7bcc9eeebeab153c0bee5ee597ff21b412f346f790f1b",
    },
    Golden {
        of: BlockType::IQ3_S,
        exponents: &[1],
        digest: "e93dbce9ed93d6823873e1bad06f68e1af00015b267ee3aecedab30b162ca528",
    },
    Golden {
        of: BlockType::IQ2_S,
        exponents: &[1],
        digest: "a81bbb230547abc3b451ed9702befb7493e54d49d076512d09be0294b8bd62cf",
    },
    Golden {
        of: BlockType::IQ4_XS,
        exponents: &[1],
        digest: "d9b80de9cd5334b53949b2ec4ca0cde28af2f63295014cfa0f1dbf369b2037bd",
    },
    Golden {
        of: BlockType::IQ1_M,
        exponents: &[55],
        digest: "e28a629ac4583e4848ba679fb83a0d217cf0de98296f1b146a7684a7fc9f00d6",
    },
    Golden {
        of: BlockType::BF16,
        exponents: &[1],
        digest: "83e5e456ead2bbd7b3ba48253b4efab4778b938c068d12566d97cbf0306d6466",
    },
    Golden {
        of: BlockType::TQ1_0,
        exponents: &[53],
        digest: "d6fd04b526af11a3c988748147c17321e166e47584fd0686ae86445690c17045",
    },
    Golden {
        of: BlockType::TQ2_0,
        exponents: &[65],
        digest: "0ad1711c0f96fb41e02292f88097b4148694c3dad25f786f31b60af6d04fed97",
    },
    Golden {
        of: BlockType::MXFP4,
        exponents: &[0],
        digest: "2946afee31277aef432e53d642b188276f07fa878d353913beaa8f818f2af716",
    },
    Golden {
        of: BlockType::NVFP4,
        exponents: &[],
        digest: "84e8c907e7ab906b32d603815d56c728ac805ae927d5792bb5d46efd3dbfb540",
    },
    Golden {
        of: BlockType::Q1_0,
        exponents: &[1],
        digest: "8632da9ffd9042a912b59616cb1d55be1538266c4b257fa5c1b37db4db24f553",
    },
    Golden {
        of: BlockType::Q2_0,
        exponents: &[1],
        digest: "d9ef50d38b3b00fcdd188788d3da72ca8f677d7f674407b454e641558d4a68a1",
    },
];
