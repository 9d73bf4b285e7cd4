// Rows times a factor each, in f32: what rows with weights are multiplied as. A block in y is a
// row.

// bf16 is the upper half of an f32.
extern "C" __global__ void weigh_bf16(const unsigned short *rows, const float *factors, float *out,
                                      unsigned int m)
{
    const unsigned int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < m) {
        const unsigned long long at = (unsigned long long)blockIdx.y * m + j;
        out[at] = factors[blockIdx.y] * __uint_as_float((unsigned int)rows[at] << 16);
    }
}

// Finite f16 numbers: exponent and fraction moved to their places in an f32 mean 2^-112 times the
// number, below its smallest normal one too.
extern "C" __global__ void weigh_f16(const unsigned short *rows, const float *factors, float *out,
                                     unsigned int m)
{
    const unsigned int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < m) {
        const unsigned long long at = (unsigned long long)blockIdx.y * m + j;
        const unsigned int bits = rows[at];
        const float size = __uint_as_float((bits & 0x7fffu) << 13) *
                           5192296858534827628530496329220096.0f; // 2^112
        out[at] = factors[blockIdx.y] * (bits & 0x8000u ? -size : size);
    }
}

extern "C" __global__ void weigh_f32(const float *rows, const float *factors, float *out,
                                     unsigned int m)
{
    const unsigned int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < m) {
        const unsigned long long at = (unsigned long long)blockIdx.y * m + j;
        out[at] = factors[blockIdx.y] * rows[at];
    }
}
