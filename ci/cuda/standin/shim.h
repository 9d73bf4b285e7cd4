// What makes a .cu file C++ for the host: one thread at a time. Kernels without barriers only.
#pragma once
#include <cmath>
#include <cstring>

struct Place {
    unsigned x, y, z;
};
extern thread_local Place threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__

inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

using std::fma;
