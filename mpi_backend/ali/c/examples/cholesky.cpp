// Symmetric positive definite systems by ScaLAPACK, in all four types: a library in C++.
//
//     mpicxx -O2 -shared -fPIC $(python -m alchemist_ray.mpi_backend.ali --cflags) cholesky.cpp -o cholesky.so
//
// No library has to be linked: ScaLAPACK's routines are found in the server when this library is loaded.
//
// ScaLAPACK sees the transpose of every matrix. The transpose of a Hermitian A is its conjugate. The upper factor of
// conj(A) = U^H U is the transpose of the lower factor of A: A = L L^H with L = U^T. So C sees L in the memory of U.
#include <cmath>
#include <complex>
#include <cstdint>

#include "alchemist_ali.h"

using c64 = std::complex<float>;
using c128 = std::complex<double>;

extern "C" {
void pspotrf_(const char *, const int *, float *, const int *, const int *, const int *, int *, std::size_t);
void pdpotrf_(const char *, const int *, double *, const int *, const int *, const int *, int *, std::size_t);
void pcpotrf_(const char *, const int *, c64 *, const int *, const int *, const int *, int *, std::size_t);
void pzpotrf_(const char *, const int *, c128 *, const int *, const int *, const int *, int *, std::size_t);
void pdpotrs_(const char *, const int *, const int *, const double *, const int *, const int *, const int *, double *,
              const int *, const int *, const int *, int *, std::size_t);
}

static auto potrf(float *) { return pspotrf_; }
static auto potrf(double *) { return pdpotrf_; }
static auto potrf(c64 *) { return pcpotrf_; }
static auto potrf(c128 *) { return pzpotrf_; }

template <class T> static int factored(alchemist_call *call, alchemist_matrix *L)
{
    T *l = static_cast<T *>(L->local);
    int finite = 1, info = 0, first = 1, n = static_cast<int>(L->n);
    std::int32_t desc[9];
    for (std::int64_t i = 0; i < L->rows.size; i++)
        for (std::int64_t j = 0; j < L->cols.size; j++)
            finite &= std::isfinite(std::abs(l[i * L->ld + j]));
    MPI_Allreduce(MPI_IN_PLACE, &finite, 1, MPI_INT, MPI_MIN, call->comm); // all ranks must decide alike
    if (!finite)
        return alchemist_fail_matrix(call, ALCHEMIST_NON_FINITE, "A", 0);
    if (int status = alchemist_scalapack(call, L, desc))
        return status;
    potrf(l)("U", &n, l, &first, &first, desc, &info, 1);
    MPI_Allreduce(MPI_IN_PLACE, &info, 1, MPI_INT, MPI_MAX, call->comm);
    if (info != 0)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR,
                              "A is not positive definite: its leading minor of order %d is not", info);
    for (std::int64_t i = 0; i < L->rows.size; i++)
        for (std::int64_t j = 0; j < L->cols.size; j++)
            if (alchemist_global(&L->cols, j) > alchemist_global(&L->rows, i))
                l[i * L->ld + j] = T(0);
    return ALCHEMIST_OK;
}

static int run_cholesky(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    if (A->m != A->n)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "A is %lld x %lld, not square", (long long)A->m,
                              (long long)A->n);
    alchemist_matrix *L = alchemist_copy(call, A, nullptr);
    if (L == nullptr)
        return ALCHEMIST_NO_MEMORY;
    int status = L->type == ALCHEMIST_FLOAT32      ? factored<float>(call, L)
                 : L->type == ALCHEMIST_FLOAT64    ? factored<double>(call, L)
                 : L->type == ALCHEMIST_COMPLEX64  ? factored<c64>(call, L)
                                                   : factored<c128>(call, L);
    return status == ALCHEMIST_OK ? alchemist_return_matrix(call, "L", L) : status;
}

// L L^T x = b. ScaLAPACK sees the upper triangular L^T. b is passed transposed, so that ScaLAPACK sees b itself.
static int run_solve(alchemist_call *call)
{
    const alchemist_matrix *L = alchemist_get_matrix(call, "L"), *b = alchemist_get_matrix(call, "b");
    if (L->m != L->n || b->m != L->m)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "L is %lld x %lld and b has %lld rows", (long long)L->m,
                              (long long)L->n, (long long)b->m);
    alchemist_matrix *xt = alchemist_transpose(call, b, "MC_MR:32");
    std::int32_t descL[9], descX[9];
    if (xt == nullptr)
        return ALCHEMIST_NO_MEMORY;
    if (alchemist_scalapack(call, L, descL) || alchemist_scalapack(call, xt, descX))
        return ALCHEMIST_LAYOUT_ERROR;
    int n = static_cast<int>(L->n), nrhs = static_cast<int>(b->n), first = 1, info = 0;
    pdpotrs_("U", &n, &nrhs, static_cast<double *>(L->local), &first, &first, descL, static_cast<double *>(xt->local),
             &first, &first, descX, &info, 1);
    if (info != 0)
        return alchemist_fail(call, ALCHEMIST_ERROR, "pdpotrs returned %d", info);
    alchemist_matrix *x = alchemist_transpose(call, xt, "MC_MR");
    return x != nullptr ? alchemist_return_matrix(call, "x", x) : ALCHEMIST_NO_MEMORY;
}

static const int32_t inexact = ALCHEMIST_FLOAT32 | ALCHEMIST_FLOAT64 | ALCHEMIST_COMPLEX64 | ALCHEMIST_COMPLEX128;

static const alchemist_parameter cholesky_parameters[] = {
    {"A", ALCHEMIST_MATRIX, nullptr, "Hermitian and positive definite, n x n; only its lower triangle is used.",
     inexact, "MC_MR:32"},
    ALCHEMIST_END,
};
static const alchemist_result cholesky_results[] = {{"L", ALCHEMIST_MATRIX, "n x n."}, ALCHEMIST_END};
static const alchemist_parameter solve_parameters[] = {
    {"L", ALCHEMIST_MATRIX, nullptr, "The result of cholesky(), n x n.", ALCHEMIST_FLOAT64, "MC_MR:32"},
    {"b", ALCHEMIST_MATRIX, nullptr, "Right-hand sides, n x k.", ALCHEMIST_FLOAT64, nullptr},
    ALCHEMIST_END,
};
static const alchemist_result solve_results[] = {{"x", ALCHEMIST_MATRIX, "Solutions, n x k."}, ALCHEMIST_END};

static const alchemist_task tasks[] = {
    {"cholesky", "Return the lower triangular L with A = L L^H (p?potrf).", cholesky_parameters, cholesky_results,
     run_cholesky},
    {"solve", "Return the x with L L^T x = b (pdpotrs).", solve_parameters, solve_results, run_solve},
    ALCHEMIST_END,
};

ALCHEMIST_LIBRARY("1.0", "Symmetric positive definite systems.", tasks, nullptr)
