/* Statistics of the rows of a matrix: a library in C with MPI_Allreduce and an iteration.
 *
 *     mpicc -O2 -shared -fPIC $(python -m alchemist_ray.mpi_backend.ali --cflags) statistics.c -o statistics.so -lm
 */
#include <math.h>

#include "alchemist_ali.h"

/* Compute the column means in `mean`, and the sums of squared deviations in `square`. Each rank has whole rows of A. */
static void sum_columns(MPI_Comm comm, const alchemist_matrix *A, double *mean, double *square)
{
    const double *a = (const double *)A->local;
    for (int64_t j = 0; j < A->n; j++)
        mean[j] = square[j] = 0.0;
    for (int64_t i = 0; i < A->rows.size; i++)
        for (int64_t j = 0; j < A->n; j++)
            mean[j] += a[i * A->ld + j];
    MPI_Allreduce(MPI_IN_PLACE, mean, (int)A->n, MPI_DOUBLE, MPI_SUM, comm);
    for (int64_t j = 0; j < A->n; j++)
        mean[j] /= (double)A->m;
    for (int64_t i = 0; i < A->rows.size; i++)
        for (int64_t j = 0; j < A->n; j++)
            square[j] += (a[i * A->ld + j] - mean[j]) * (a[i * A->ld + j] - mean[j]);
    MPI_Allreduce(MPI_IN_PLACE, square, (int)A->n, MPI_DOUBLE, MPI_SUM, comm);
}

static int run_standardized(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    alchemist_matrix *B = alchemist_new_like(call, A, A->m, A->n, A->type);
    alchemist_matrix *moments = alchemist_new(call, 2, A->n, ALCHEMIST_FLOAT64, "STAR_STAR");
    int status = ALCHEMIST_OK;
    if (B == NULL || moments == NULL)
        return ALCHEMIST_NO_MEMORY; /* on every rank; the failure is already noted */
    double *mean = (double *)moments->local, *deviation = mean + A->n;
    sum_columns(call->comm, A, mean, deviation);
    for (int64_t j = 0; j < A->n && status == ALCHEMIST_OK; j++) {
        deviation[j] = sqrt(deviation[j] / (double)A->m);
        if (!isfinite(deviation[j])) /* the sums are the same on every rank, so all ranks fail, or none */
            status = alchemist_fail_matrix(call, ALCHEMIST_NON_FINITE, "A", 0);
        else if (deviation[j] == 0.0)
            status = alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "column %lld of A is constant", (long long)j);
    }
    for (int64_t i = 0; i < A->rows.size && status == ALCHEMIST_OK; i++)
        for (int64_t j = 0; j < A->n; j++)
            ((double *)B->local)[i * B->ld + j] =
                (((const double *)A->local)[i * A->ld + j] - mean[j]) / deviation[j];
    if (status == ALCHEMIST_OK) {
        alchemist_return_matrix(call, "B", B);
        alchemist_return_vector(call, "mean", A->n, ALCHEMIST_FLOAT64, mean);
        alchemist_return_vector(call, "deviation", A->n, ALCHEMIST_FLOAT64, deviation);
    }
    return status;
}

/* One step of the power iteration on A^T A: w = A^T (A v), with one reduction. */
static void multiply(MPI_Comm comm, const alchemist_matrix *A, const double *v, double *w)
{
    const double *a = (const double *)A->local;
    for (int64_t j = 0; j < A->n; j++)
        w[j] = 0.0;
    for (int64_t i = 0; i < A->rows.size; i++) {
        double product = 0.0;
        for (int64_t j = 0; j < A->n; j++)
            product += a[i * A->ld + j] * v[j];
        for (int64_t j = 0; j < A->n; j++)
            w[j] += product * a[i * A->ld + j];
    }
    MPI_Allreduce(MPI_IN_PLACE, w, (int)A->n, MPI_DOUBLE, MPI_SUM, comm);
}

static int run_spectral_norm(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    const double tol = alchemist_get_float(call, "tol");
    const int64_t limit = alchemist_get_int(call, "maxiter");
    alchemist_matrix *vectors = alchemist_new(call, 2, A->n, ALCHEMIST_FLOAT64, "STAR_STAR");
    if (vectors == NULL)
        return ALCHEMIST_NO_MEMORY; /* on every rank; the failure is already noted */
    double *v = (double *)vectors->local, *w = v + A->n, last = 0.0;
    for (int64_t j = 0; j < A->n; j++)
        v[j] = (1.0 + 1e-3 * (double)(j % 7)) / sqrt((double)A->n);
    for (int64_t k = 0; k < limit; k++) {
        double sum = 0.0, norm;
        multiply(call->comm, A, v, w);
        for (int64_t j = 0; j < A->n; j++)
            sum += w[j] * w[j];
        norm = sqrt(sum);
        if (!isfinite(norm) || norm == 0.0 || fabs(norm - last) <= tol * norm) {
            if (!isfinite(norm))
                return alchemist_fail_matrix(call, ALCHEMIST_NON_FINITE, "A", 0);
            alchemist_return_int(call, "iterations", k + 1);
            return alchemist_return_float(call, "norm", sqrt(norm));
        }
        for (int64_t j = 0; j < A->n; j++)
            v[j] = w[j] / norm;
        last = norm;
        alchemist_progress(call, (double)(k + 1), (double)limit, "power iteration");
        if (alchemist_check_cancelled(call) != ALCHEMIST_OK)
            break; /* the failure is noted, so the return value no longer counts */
    }
    return alchemist_fail(call, ALCHEMIST_NOT_CONVERGED, "the norm still changed after %lld steps", (long long)limit);
}

static const alchemist_parameter standardized_parameters[] = {
    {"A", ALCHEMIST_MATRIX, NULL, "One observation per row.", ALCHEMIST_FLOAT64, "VC_STAR"},
    ALCHEMIST_END,
};
static const alchemist_result standardized_results[] = {
    {"B", ALCHEMIST_MATRIX, "A with columns of mean 0 and standard deviation 1."},
    {"mean", ALCHEMIST_ARRAY, "The means of the columns of A."},
    {"deviation", ALCHEMIST_ARRAY, "Their standard deviations."},
    ALCHEMIST_END,
};
static const alchemist_parameter norm_parameters[] = {
    {"A", ALCHEMIST_MATRIX, NULL, "The matrix.", ALCHEMIST_FLOAT64, "VC_STAR"},
    {"tol", ALCHEMIST_FLOAT, "1e-14", "Relative change of the squared norm at which to stop.", 0, NULL},
    {"maxiter", ALCHEMIST_INT, "1000", "Maximum number of steps.", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_result norm_results[] = {
    {"norm", ALCHEMIST_FLOAT, "The largest singular value."},
    {"iterations", ALCHEMIST_INT, "Number of steps."},
    ALCHEMIST_END,
};
static const alchemist_task tasks[] = {
    {"standardized", "Scale the columns of a matrix to mean 0 and standard deviation 1.", standardized_parameters,
     standardized_results, run_standardized},
    {"spectral_norm", "Return the 2-norm of a matrix, by the power iteration.", norm_parameters, norm_results,
     run_spectral_norm},
    ALCHEMIST_END,
};

ALCHEMIST_LIBRARY("1.0", "Statistics of the rows of a matrix.", tasks, NULL)
