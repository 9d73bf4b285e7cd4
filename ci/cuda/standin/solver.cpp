// The stand-in's cuSOLVER: a symmetric eigenproblem by Jacobi's rotations.
#include "machine.h"
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

using namespace standin;
using Lock = std::lock_guard<std::recursive_mutex>;

namespace
{

constexpr int ALLOC_FAILED = 2, INVALID_VALUE = 3, EXECUTION_FAILED = 6;

struct Solver {
    Stream *stream = nullptr;
};

int failed(Kind kind)
{
    const int code = begin(kind);
    return code == 0 ? 0 : code == 2 ? ALLOC_FAILED : EXECUTION_FAILED;
}

// Golub and Van Loan, Matrix Computations, 8.5: values ascending, vectors as columns of `a`.
int decompose(int n, double *a, double *values)
{
    std::vector<double> s(size_t(n) * n), v(size_t(n) * n);
    for (int j = 0; j < n; j += 1) {
        v[size_t(j) * n + j] = 1.0;
        for (int i = j; i < n; i += 1) {
            s[size_t(j) * n + i] = s[size_t(i) * n + j] = a[size_t(j) * n + i];
        }
    }
    const double norm = std::sqrt(std::inner_product(s.begin(), s.end(), s.begin(), 0.0));
    bool done = !std::isfinite(norm);
    for (int sweep = 0; sweep < 60 && !done; sweep += 1) {
        done = true;
        for (int p = 0; p < n; p += 1) {
            for (int q = p + 1; q < n; q += 1) {
                const double beside = s[size_t(p) * n + q];
                if (std::abs(beside) <= 1e-18 * norm) {
                    continue;
                }
                done = done && std::abs(beside) <= 1e-16 * norm;
                const double tau = (s[size_t(q) * n + q] - s[size_t(p) * n + p]) / (2.0 * beside);
                const double t = std::copysign(1.0, tau) / (std::abs(tau) + std::hypot(1.0, tau));
                const double cos = 1.0 / std::hypot(1.0, t), sin = t * cos;
                auto rotate = [&](double *x, double *y, size_t step) {
                    for (size_t k = 0; k < size_t(n); k += 1) {
                        const double left = x[k * step], right = y[k * step];
                        x[k * step] = cos * left - sin * right;
                        y[k * step] = sin * left + cos * right;
                    }
                };
                rotate(&s[size_t(p) * n], &s[size_t(q) * n], 1);
                rotate(&s[p], &s[q], n);
                rotate(&v[size_t(p) * n], &v[size_t(q) * n], 1);
            }
        }
    }
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int x, int y) { return s[size_t(x) * n + x] < s[size_t(y) * n + y]; });
    for (int j = 0; j < n; j += 1) {
        values[j] = s[size_t(order[j]) * n + order[j]];
        std::copy_n(&v[size_t(order[j]) * n], n, a + size_t(j) * n);
    }
    return done && std::isfinite(norm) ? 0 : 1;
}

} // namespace

extern "C" {

int cusolverDnCreate(Solver **handle)
{
    Lock lock(one_at_a_time);
    if (const int code = failed(Allocation)) {
        return code;
    }
    *handle = new Solver;
    alive.handles += 1;
    return 0;
}
int cusolverDnDestroy(Solver *handle)
{
    Lock lock(one_at_a_time);
    delete handle;
    alive.handles -= 1;
    return failed(Release);
}
int cusolverGetVersion(int *version)
{
    Lock lock(one_at_a_time);
    *version = 11703;
    return failed(Plain);
}
int cusolverDnSetStream(Solver *handle, Stream *stream)
{
    Lock lock(one_at_a_time);
    handle->stream = stream;
    return failed(Plain);
}
int cusolverDnDsyevd_bufferSize(Solver *, unsigned, unsigned, int n, const double *, int,
                                const double *, int *length)
{
    Lock lock(one_at_a_time);
    *length = n;
    return failed(Plain);
}
int cusolverDnDsyevd(Solver *solver, unsigned what, unsigned triangle, int n, double *a, int lda,
                     double *values, double *workspace, int length, int *info)
{
    Lock lock(one_at_a_time);
    if (const int code = failed(Plain)) {
        return code;
    }
    if (what != 1 || triangle != 0 || lda != n || length < n) {
        return INVALID_VALUE;
    }
    double *a_here = (double *)host((uint64_t)a, sizeof(double) * n * n, "a matrix");
    double *values_here = (double *)host((uint64_t)values, sizeof(double) * n, "eigenvalues");
    double *work_here = (double *)host((uint64_t)workspace, sizeof(double) * length, "a workspace");
    int *info_here = (int *)host((uint64_t)info, sizeof(int), "info");
    ask(solver->stream, [=] {
        std::fill_n(work_here, length, 0.0);
        *info_here = decompose(n, a_here, values_here);
    });
    return 0;
}

} // extern "C"
