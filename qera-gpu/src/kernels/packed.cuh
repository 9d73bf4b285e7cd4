#pragma once
// Where things lie in the packed upper triangle of a symmetric m x m matrix, by rows.

// Of element (i, j), i <= j: row i begins at its diagonal element.
__device__ inline unsigned long long packed_at(unsigned int m, unsigned int i, unsigned int j)
{
    const unsigned long long row = i;
    return row * (2ULL * m + 1 - row) / 2 + (j - i);
}

// Element (i, j), whichever is larger.
__device__ inline double element(const double *packed, unsigned int m, unsigned int i,
                                 unsigned int j)
{
    return i <= j ? packed[packed_at(m, i, j)] : packed[packed_at(m, j, i)];
}
