// tr(R P P^T) = sum_i R_ii s_i + 2 sum_{i < j} R_ij (P P^T)_ij, s_i the sum of the squares of row i of P, in f64.
// Every sum has one thread and one order: no barriers, no atomics.
#include "packed.cuh"

// Adds R_ij S_ij over j > i to blockDim.x partial sums of each row first .. first + gridDim.y; S as for fold_panel.
extern "C" __global__ void trace_panel(const double *packed, const float *sums, double *partial, unsigned int m,
                                       unsigned int first)
{
    const unsigned int i = first + blockIdx.y;
    const float *row = sums + (unsigned long long)blockIdx.y * (m - first);
    double sum = 0.0;
    for (unsigned int j = i + 1 + threadIdx.x; j < m; j += blockDim.x) {
        sum = fma(packed[packed_at(m, i, j)], (double)row[j - first], sum);
    }
    partial[(unsigned long long)i * blockDim.x + threadIdx.x] += sum;
}

// Adds to s the squares of `count` columns of P.
extern "C" __global__ void add_squares(const float *p, double *squares, unsigned int m, unsigned int count)
{
    const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= m) {
        return;
    }
    double sum = squares[i];
    for (unsigned int column = 0; column < count; column += 1) {
        const double value = (double)p[(unsigned long long)column * m + i];
        sum = fma(value, value, sum);
    }
    squares[i] = sum;
}

// What each row adds to the trace, from `width` partial sums of it.
extern "C" __global__ void trace_rows(const double *packed, const double *partial, const double *squares, double *rows,
                                      unsigned int m, unsigned int width)
{
    const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= m) {
        return;
    }
    double beside = 0.0;
    for (unsigned int at = 0; at < width; at += 1) {
        beside += partial[(unsigned long long)i * width + at];
    }
    rows[i] = fma(packed[packed_at(m, i, i)], squares[i], 2.0 * beside);
}
