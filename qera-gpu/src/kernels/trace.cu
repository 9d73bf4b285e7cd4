// tr(R S) = sum_i (R_ii S_ii + 2 sum_{i < j} R_ij S_ij) for symmetric R (packed) and S (by panels).
// Every sum has one thread and one order: no barriers, no atomics.
#include "packed.cuh"

// Adds what each row first .. first + gridDim.y has to blockDim.x partial sums of that row. S holds
// the numbers of row i at (i - first) (m - first), from column `first` on.
extern "C" __global__ void trace_panel(const double *packed, const double *sums, double *partial,
                                       unsigned int m, unsigned int first)
{
    const unsigned int i = first + blockIdx.y;
    const double *row = sums + (unsigned long long)blockIdx.y * (m - first);
    double sum = 0.0;
    for (unsigned int j = i + threadIdx.x; j < m; j += blockDim.x) {
        const double times = j == i ? 1.0 : 2.0;
        sum = fma(times * packed[packed_at(m, i, j)], row[j - first], sum);
    }
    partial[(unsigned long long)i * blockDim.x + threadIdx.x] += sum;
}

// What each row adds to the trace, from `width` partial sums of it.
extern "C" __global__ void trace_rows(const double *partial, double *rows, unsigned int m,
                                      unsigned int width)
{
    const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= m) {
        return;
    }
    double sum = 0.0;
    for (unsigned int at = 0; at < width; at += 1) {
        sum += partial[(unsigned long long)i * width + at];
    }
    rows[i] = sum;
}
