// From the form in which numbers are kept to the form in which they are multiplied.
#include "packed.cuh"

// f32 numbers in f64.
extern "C" __global__ void widen(const float *from, double *to, unsigned long long count)
{
    const unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) {
        to[at] = (double)from[at];
    }
}

// Columns first .. first + gridDim.y of a packed matrix, whole, in f64.
extern "C" __global__ void unpack_columns(const double *packed, double *columns, unsigned int m,
                                          unsigned int first)
{
    const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < m) {
        columns[(unsigned long long)blockIdx.y * m + i] = element(packed, m, i, first + blockIdx.y);
    }
}

// The same of the matrix divided by `scale`, in f32.
extern "C" __global__ void unpack_scaled(const double *packed, float *columns, unsigned int m,
                                         unsigned int first, double scale)
{
    const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < m) {
        const double value = element(packed, m, i, first + blockIdx.y) / scale;
        columns[(unsigned long long)blockIdx.y * m + i] = (float)value;
    }
}
