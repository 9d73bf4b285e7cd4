// The stand-in's cuBLAS: what qera-gpu calls of it. Sums in the type that the call names, in one
// order.
//
// It refuses what qera never wants: f32 products that are not pedantic (TF32 would be one), sums by
// atomics, a workspace that is the library's own.
#include "machine.h"
#include <cstring>
#include <vector>

using namespace standin;
using Lock = std::lock_guard<std::recursive_mutex>;

namespace
{

constexpr int ALLOC_FAILED = 3, INVALID_VALUE = 7, EXECUTION_FAILED = 13;
constexpr unsigned PEDANTIC = 2, NO_REDUCED_REDUCTION = 16;
constexpr unsigned F32 = 0, F16 = 2, BF16 = 14, COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69;

struct Blas {
    Stream *stream = nullptr;
    bool workspace = false, no_atomics = false;
    unsigned math = 0;
};

int failed(Kind kind)
{
    const int code = begin(kind);
    return code == 0 ? 0 : code == 2 ? ALLOC_FAILED : EXECUTION_FAILED;
}

bool ready(const Blas *blas)
{
    return blas->stream && blas->workspace && blas->no_atomics;
}

size_t numbers(int stride, int rows, int columns)
{
    return columns == 0 ? 0 : size_t(columns - 1) * stride + rows;
}

// C = A op(B) + beta C, by columns, A as it lies.
template <class T>
void multiply(bool transposed, int m, int n, int depth, const T *a, int lda, const T *b, int ldb,
              T beta, T *c, int ldc)
{
    std::vector<T> sums(m);
    for (int j = 0; j < n; j += 1) {
        std::fill(sums.begin(), sums.end(), T(0));
        for (int l = 0; l < depth; l += 1) {
            const T factor = transposed ? b[size_t(l) * ldb + j] : b[size_t(j) * ldb + l];
            const T *column = a + size_t(l) * lda;
            for (int i = 0; i < m; i += 1) {
                sums[i] += column[i] * factor;
            }
        }
        T *to = c + size_t(j) * ldc;
        for (int i = 0; i < m; i += 1) {
            // What C holds is not read where beta is 0: it may be NaN.
            to[i] = beta == T(0) ? sums[i] : sums[i] + beta * to[i];
        }
    }
}

// As a tensor core takes them: of an f32 number 10 of 23 bits, rounded.
template <class T> std::vector<T> as_tf32(const T *from, size_t count)
{
    std::vector<T> to(from, from + count);
    if constexpr (sizeof(T) == sizeof(uint32_t)) {
        for (T &number : to) {
            uint32_t bits;
            memcpy(&bits, &number, sizeof bits);
            bits = (bits + 0x1000) & ~0x1fffu;
            memcpy(&number, &bits, sizeof bits);
        }
    }
    return to;
}

template <class T>
int gemm(Blas *blas, unsigned op_a, unsigned op_b, int m, int n, int depth, const T *alpha,
         const T *a, int lda, const T *b, int ldb, const T *beta, T *c, int ldc)
{
    if (const int code = failed(Plain)) {
        return code;
    }
    if (!ready(blas) || blas->math != PEDANTIC || op_a != 0 || op_b > 1 || *alpha != T(1) ||
        lda < m || ldc < m || ldb < (op_b ? n : depth)) {
        return INVALID_VALUE;
    }
    const size_t of_a = numbers(lda, m, depth),
                 of_b = op_b ? numbers(ldb, n, depth) : numbers(ldb, depth, n);
    const T *a_here = (const T *)host((uint64_t)a, sizeof(T) * of_a, "A of a product");
    const T *b_here = (const T *)host((uint64_t)b, sizeof(T) * of_b, "B of a product");
    T *c_here = (T *)host((uint64_t)c, sizeof(T) * numbers(ldc, m, n), "C of a product");
    const T add = *beta;
    const bool tf32 = opened_is("tf32-matrices");
    ask(blas->stream, [=] {
        if (!tf32) {
            multiply<T>(op_b, m, n, depth, a_here, lda, b_here, ldb, add, c_here, ldc);
            return;
        }
        const std::vector<T> rounded_a = as_tf32(a_here, of_a), rounded_b = as_tf32(b_here, of_b);
        multiply<T>(op_b, m, n, depth, rounded_a.data(), lda, rounded_b.data(), ldb, add, c_here,
                    ldc);
    });
    return 0;
}

float widened(uint16_t bits, unsigned type)
{
    uint32_t whole = uint32_t(bits) << 16;
    if (type == F16) {
        _Float16 half;
        memcpy(&half, &bits, sizeof half);
        return float(half);
    }
    float value;
    memcpy(&value, &whole, sizeof value);
    return value;
}

std::vector<float> widened(const void *from, unsigned type, size_t count)
{
    std::vector<float> to(count);
    if (type == F32) {
        memcpy(to.data(), from, count * sizeof(float));
    } else {
        for (size_t at = 0; at < count; at += 1) {
            to[at] = widened(static_cast<const uint16_t *>(from)[at], type);
        }
    }
    return to;
}

} // namespace

extern "C" {

int cublasCreate_v2(Blas **handle)
{
    Lock lock(one_at_a_time);
    if (const int code = failed(Allocation)) {
        return code;
    }
    *handle = new Blas;
    alive.handles += 1;
    return 0;
}
int cublasDestroy_v2(Blas *handle)
{
    Lock lock(one_at_a_time);
    delete handle;
    alive.handles -= 1;
    return failed(Release);
}
int cublasGetVersion_v2(Blas *, int *version)
{
    Lock lock(one_at_a_time);
    *version = 120804;
    return failed(Plain);
}
// As the real one, it takes the workspace away.
int cublasSetStream_v2(Blas *handle, Stream *stream)
{
    Lock lock(one_at_a_time);
    handle->stream = stream;
    handle->workspace = false;
    return failed(Plain);
}
int cublasSetWorkspace_v2(Blas *handle, void *start, size_t bytes)
{
    Lock lock(one_at_a_time);
    handle->workspace = host((uint64_t)start, bytes, "a workspace") != nullptr;
    return failed(Plain);
}
int cublasSetMathMode(Blas *handle, unsigned mode)
{
    Lock lock(one_at_a_time);
    handle->math = mode;
    return failed(Plain);
}
int cublasSetAtomicsMode(Blas *handle, unsigned mode)
{
    Lock lock(one_at_a_time);
    handle->no_atomics = mode == 0;
    return failed(Plain);
}

int cublasSgemm_v2(Blas *blas, unsigned op_a, unsigned op_b, int m, int n, int depth,
                   const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc)
{
    Lock lock(one_at_a_time);
    return gemm<float>(blas, op_a, op_b, m, n, depth, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasDgemm_v2(Blas *blas, unsigned op_a, unsigned op_b, int m, int n, int depth,
                   const double *alpha, const double *a, int lda, const double *b, int ldb,
                   const double *beta, double *c, int ldc)
{
    Lock lock(one_at_a_time);
    return gemm<double>(blas, op_a, op_b, m, n, depth, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasGemmEx(Blas *blas, unsigned op_a, unsigned op_b, int m, int n, int depth,
                 const float *alpha, const void *a, unsigned type_a, int lda, const void *b,
                 unsigned type_b, int ldb, const float *beta, float *c, unsigned type_c, int ldc,
                 unsigned compute, int)
{
    Lock lock(one_at_a_time);
    if (const int code = failed(Plain)) {
        return code;
    }
    const bool pedantic = type_a == F32;
    if (!ready(blas) || blas->math != (pedantic ? PEDANTIC : NO_REDUCED_REDUCTION) ||
        compute != (pedantic ? COMPUTE_F32_PEDANTIC : COMPUTE_F32) || type_b != type_a ||
        type_c != F32 || (type_a != F32 && type_a != F16 && type_a != BF16) || op_a != 0 ||
        op_b != 1 || *alpha != 1.0f || lda < m || ldb < n || ldc < m) {
        return INVALID_VALUE;
    }
    const size_t size = type_a == F32 ? 4 : 2, of_a = numbers(lda, m, depth),
                 of_b = numbers(ldb, n, depth);
    const void *a_here = host((uint64_t)a, size * of_a, "A of a product");
    const void *b_here = host((uint64_t)b, size * of_b, "B of a product");
    float *c_here =
        (float *)host((uint64_t)c, sizeof(float) * numbers(ldc, m, n), "C of a product");
    const float add = *beta;
    const bool tf32 = type_a == F32 && opened_is("tf32-rows");
    ask(blas->stream, [=] {
        std::vector<float> wide_a = widened(a_here, type_a, of_a),
                           wide_b = widened(b_here, type_a, of_b);
        if (tf32) {
            wide_a = as_tf32(wide_a.data(), of_a);
            wide_b = as_tf32(wide_b.data(), of_b);
        }
        multiply<float>(true, m, n, depth, wide_a.data(), lda, wide_b.data(), ldb, add, c_here,
                        ldc);
    });
    return 0;
}

} // extern "C"
