// R <- kept R + per_sum S for `blockDim`-wide pieces of rows first .. first + gridDim.y of the
// packed triangle; S holds the sums of row i at (i - first) (m - first), from column `first` on.
// One rounding for the kept mean and one for the result: fma says so whatever the compiler
// contracts.
#include "packed.cuh"

extern "C" __global__ void fold_panel(double *packed, const float *sums, unsigned int m,
                                      unsigned int first, double kept, double per_sum)
{
    const unsigned int i = first + blockIdx.y;
    const unsigned int j = first + blockIdx.x * blockDim.x + threadIdx.x;
    if (j < i || j >= m) {
        return;
    }
    const unsigned long long at = packed_at(m, i, j);
    const unsigned long long from = (unsigned long long)blockIdx.y * (m - first) + (j - first);
    packed[at] = fma(per_sum, (double)sums[from], kept * packed[at]);
}
