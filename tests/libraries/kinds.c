/* A library for tests: every kind of argument and result, matrices in every layout, every error. */
#include <stdlib.h>

#include "alchemist_ali.h"

static int run_echo(alchemist_call *call)
{
    static const char *const names[] = {"truth", "integer", "real", "complex", "string", "array", "open"};
    for (int i = 0; i < 7; i++)
        alchemist_return(call, names[i], alchemist_argument(call, names[i]));
    return ALCHEMIST_OK;
}

static int run_getters(alchemist_call *call)
{
    double real, imag;
    const alchemist_array *array = alchemist_get_array(call, "array");
    double sum = 0.0;
    alchemist_get_complex(call, "complex", &real, &imag);
    for (int64_t i = 0; i < array->size; i++)
        sum += ((const double *)array->elements)[i];
    alchemist_return_bool(call, "truth", !alchemist_get_bool(call, "truth"));
    alchemist_return_int(call, "integer", alchemist_get_int(call, "integer") + 1);
    alchemist_return_float(call, "real", 2.0 * alchemist_get_float(call, "real"));
    alchemist_return_complex(call, "complex", real, -imag);
    alchemist_return_string(call, "string", alchemist_get_string(call, "string"));
    alchemist_return_vector(call, "array", 1, ALCHEMIST_FLOAT64, &sum);
    return alchemist_is_none(call, "open") ? alchemist_return_none(call, "open")
                                           : alchemist_return_int(call, "open", alchemist_get_int(call, "open"));
}

/* Each rank writes the place of each of its elements by the header's functions; -1 where they disagree. */
static int run_places(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    alchemist_matrix *B = alchemist_new_like(call, A, A->m, A->n, ALCHEMIST_INT64);
    int64_t held = 0;
    if (B == NULL)
        return ALCHEMIST_NO_MEMORY;
    for (int64_t i = 0; i < A->rows.size; i++)
        for (int64_t j = 0; j < A->cols.size; j++) {
            const int64_t row = alchemist_global(&A->rows, i), col = alchemist_global(&A->cols, j);
            const int agreed = alchemist_local(&A->rows, row) == i && alchemist_local(&A->cols, col) == j;
            ((int64_t *)B->local)[i * B->ld + j] = agreed ? row * A->n + col : -1;
        }
    for (int64_t row = -1; row <= A->m; row++)
        for (int64_t col = -1; col <= A->n; col++)
            held += alchemist_local(&A->rows, row) >= 0 && alchemist_local(&A->cols, col) >= 0;
    if (held != A->rows.size * A->cols.size)
        return alchemist_fail(call, ALCHEMIST_ERROR, "%lld elements are held by index", (long long)held);
    held = A->is_source ? held : 0;
    MPI_Allreduce(MPI_IN_PLACE, &held, 1, MPI_INT64_T, MPI_SUM, call->comm);
    alchemist_return_int(call, "sources", held);
    return alchemist_return_matrix(call, "B", B);
}

static int run_facts(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    const int64_t facts[] = {A->m, A->n, A->rows.size, A->cols.size, A->ld, A->type, A->itemsize, A->mb, A->nb,
                             A->nprow, A->npcol, A->myrow, A->mycol, A->row_align, A->col_align, A->redundant,
                             call->rank, call->size};
    if (call->rank > 0)
        return ALCHEMIST_OK; /* values that differ between ranks are returned by rank 0 only */
    alchemist_return_string(call, "pair", A->pair);
    return alchemist_return_vector(call, "facts", sizeof facts / sizeof *facts, ALCHEMIST_INT64, facts);
}

/* A copy, made through another layout and two transposes. */
static int run_there_and_back(alchemist_call *call)
{
    const alchemist_matrix *A = alchemist_get_matrix(call, "A");
    alchemist_matrix *B = alchemist_copy(call, A, alchemist_get_string(call, "layout"));
    alchemist_matrix *C = B != NULL ? alchemist_transpose(call, B, NULL) : NULL;
    alchemist_matrix *D = C != NULL ? alchemist_copy(call, C, NULL) : NULL;
    alchemist_matrix *E = D != NULL ? alchemist_transpose(call, D, "VC_STAR") : NULL;
    if (E == NULL)
        return ALCHEMIST_ERROR;
    return alchemist_return_matrix(call, "B", E);
}

static int run_zeros(alchemist_call *call)
{
    const int64_t m = alchemist_get_int(call, "m"), n = alchemist_get_int(call, "n");
    alchemist_matrix *A = alchemist_new(call, m, n, (int32_t)alchemist_get_int(call, "type"), "MC_MR:3x2");
    if (A == NULL)
        return ALCHEMIST_OK; /* the failure is noted, and counts all the same */
    memset(A->local, 0, (size_t)(A->rows.size * A->cols.size * A->itemsize));
    return alchemist_return_matrix(call, "A", A);
}

static int run_fail(alchemist_call *call)
{
    const int code = (int)alchemist_get_int(call, "code");
    const char *matrix = alchemist_get_string(call, "matrix");
    if (alchemist_get_bool(call, "silent"))
        return code;
    if (matrix[0] != '\0')
        return alchemist_fail_matrix(call, code, matrix, 7);
    return alchemist_fail(call, code, "code %d, and 100 %% of it", code);
}

static int run_fail_together(alchemist_call *call)
{
    if (call->rank == 1)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "rank 1 knows why");
    return alchemist_fail_peer(call, 1);
}

static int run_sleep(alchemist_call *call)
{
    const double end = MPI_Wtime() + alchemist_get_float(call, "seconds");
    while (MPI_Wtime() < end)
        ;
    return ALCHEMIST_OK;
}

static int run_fail_on(alchemist_call *call)
{
    if (call->rank != alchemist_get_int(call, "rank"))
        return ALCHEMIST_OK;
    return alchemist_fail(call, ALCHEMIST_OWN_ERROR + 1, "on rank %d alone", call->rank);
}

/* The second call returns the matrix of the first call. */
static int misuse_stale(alchemist_call *call)
{
    static alchemist_matrix kept;
    const alchemist_matrix before = kept, *A = alchemist_new(call, 2, 2, ALCHEMIST_FLOAT64, "STAR_STAR");
    if (A == NULL)
        return ALCHEMIST_NO_MEMORY;
    kept = *A;
    alchemist_return_string(call, "string", "");
    return before.key != 0 ? alchemist_return_matrix(call, "matrix", &before) : ALCHEMIST_OK;
}

/* The same task for workers that lack the last function: the library must not read it. */
static int run_older(alchemist_call *call)
{
    alchemist_api api;
    alchemist_call older = *call;
    memcpy(&api, call->api, sizeof api);
    api.size = offsetof(alchemist_api, scratch);
    older.api = &api;
    if (call->api->size != (int64_t)sizeof api || !alchemist_has(call, scratch))
        return alchemist_fail(call, ALCHEMIST_ERROR, "a table of %lld bytes", (long long)call->api->size);
    if (alchemist_has(&older, scratch) || !alchemist_has(&older, scalapack))
        return alchemist_fail(call, ALCHEMIST_ERROR, "an older table has been read beyond its end");
    return ALCHEMIST_OK;
}

/* Wrong uses of the interface. */
static int run_misuse(alchemist_call *call)
{
    const char *how = alchemist_get_string(call, "how");
    alchemist_array array = {ALCHEMIST_FLOAT64, 1, 3, {2}, &array};
    if (strcmp(how, "unknown argument") == 0)
        alchemist_get_int(call, "there is none");
    else if (strcmp(how, "argument of another kind") == 0)
        alchemist_get_int(call, "how");
    else if (strcmp(how, "unknown result") == 0)
        alchemist_return_int(call, "there is none", 1);
    else if (strcmp(how, "result of another kind") == 0)
        alchemist_return_int(call, "string", 1);
    else if (strcmp(how, "NULL string") == 0)
        alchemist_return_string(call, "string", NULL);
    else if (strcmp(how, "NULL array") == 0)
        alchemist_return_array(call, "array", NULL);
    else if (strcmp(how, "array that lies") == 0)
        alchemist_return_array(call, "array", &array);
    else if (strcmp(how, "NULL matrix") == 0)
        alchemist_return_matrix(call, "matrix", NULL);
    else if (strcmp(how, "unknown layout") == 0)
        alchemist_new(call, 2, 2, ALCHEMIST_FLOAT64, "MC_XX");
    else if (strcmp(how, "unknown type") == 0)
        alchemist_new(call, 2, 2, 3, "MC_MR");
    else if (strcmp(how, "stale matrix") == 0)
        return misuse_stale(call);
    else if (strcmp(how, "text that is not UTF-8") == 0)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "caf\xe9");
    else if (strcmp(how, "result that is not UTF-8") == 0)
        return alchemist_return_string(call, "string", "caf\xe9");
    else if (strcmp(how, "no result") == 0)
        return ALCHEMIST_OK;
    return alchemist_return_string(call, "string", "");
}

static int run_surroundings(alchemist_call *call)
{
    int sum = call->rank;
    const char *scratch = alchemist_scratch(call);
    alchemist_log(call, ALCHEMIST_WARNING, "rank %d was here", call->rank);
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_INT, MPI_SUM, call->comm);
    alchemist_progress(call, 1.0, 2.0, "half");
    if (call->rank > 0)
        return ALCHEMIST_OK;
    alchemist_return_int(call, "sum", sum);
    return scratch != NULL ? alchemist_return_string(call, "scratch", scratch) : ALCHEMIST_ERROR;
}

static int run_forever(alchemist_call *call)
{
    while (alchemist_check_cancelled(call) == ALCHEMIST_OK)
        ;
    return ALCHEMIST_OK; /* the failure is noted, and counts all the same */
}

#define ANY_TYPE 0
static const alchemist_parameter echo_parameters[] = {
    {"truth", ALCHEMIST_BOOL, "True", "", 0, NULL},
    {"integer", ALCHEMIST_INT, "-3", "", 0, NULL},
    {"real", ALCHEMIST_FLOAT, "1", "", 0, NULL},
    {"complex", ALCHEMIST_COMPLEX, "(1+2j)", "", 0, NULL},
    {"string", ALCHEMIST_STRING, "'h\xc3\xa4'", "", 0, NULL},
    {"array", ALCHEMIST_ARRAY, "[1, 2]", "", ANY_TYPE, NULL},
    {"open", ALCHEMIST_INT | ALCHEMIST_STRING | ALCHEMIST_NONE, "None", "", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_parameter getters_parameters[] = {
    {"truth", ALCHEMIST_BOOL, NULL, "", 0, NULL},
    {"integer", ALCHEMIST_INT, NULL, "", 0, NULL},
    {"real", ALCHEMIST_FLOAT, NULL, "", 0, NULL},
    {"complex", ALCHEMIST_COMPLEX, NULL, "", 0, NULL},
    {"string", ALCHEMIST_STRING, NULL, "", 0, NULL},
    {"array", ALCHEMIST_ARRAY, NULL, "", ALCHEMIST_FLOAT64, NULL},
    {"open", ALCHEMIST_INT | ALCHEMIST_NONE, "None", "", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_result echo_results[] = {
    {"truth", ALCHEMIST_BOOL, ""},
    {"integer", ALCHEMIST_INT, ""},
    {"real", ALCHEMIST_FLOAT, ""},
    {"complex", ALCHEMIST_COMPLEX, ""},
    {"string", ALCHEMIST_STRING, ""},
    {"array", ALCHEMIST_ARRAY, ""},
    {"open", ALCHEMIST_INT | ALCHEMIST_STRING | ALCHEMIST_NONE, ""},
    ALCHEMIST_END,
};
static const alchemist_parameter matrix_parameters[] = {{"A", ALCHEMIST_MATRIX, NULL, "", 0, NULL}, ALCHEMIST_END};
static const alchemist_parameter laid_out_parameters[] = {
    {"A", ALCHEMIST_MATRIX, NULL, "", ALCHEMIST_FLOAT64 | ALCHEMIST_COMPLEX64, "MR_MC:3x2"}, ALCHEMIST_END};
static const alchemist_result places_results[] = {
    {"sources", ALCHEMIST_INT, ""}, {"B", ALCHEMIST_MATRIX, ""}, ALCHEMIST_END};
static const alchemist_result facts_results[] = {
    {"pair", ALCHEMIST_STRING, ""}, {"facts", ALCHEMIST_ARRAY, ""}, ALCHEMIST_END};
static const alchemist_parameter there_parameters[] = {
    {"A", ALCHEMIST_MATRIX, NULL, "", 0, NULL}, {"layout", ALCHEMIST_STRING, NULL, "", 0, NULL}, ALCHEMIST_END};
static const alchemist_result matrix_results[] = {{"B", ALCHEMIST_MATRIX, ""}, ALCHEMIST_END};
static const alchemist_parameter zeros_parameters[] = {
    {"m", ALCHEMIST_INT, NULL, "", 0, NULL},
    {"n", ALCHEMIST_INT, NULL, "", 0, NULL},
    {"type", ALCHEMIST_INT, "1", "", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_result zeros_results[] = {{"A", ALCHEMIST_MATRIX, ""}, ALCHEMIST_END};
static const alchemist_parameter fail_parameters[] = {
    {"code", ALCHEMIST_INT, NULL, "", 0, NULL},
    {"matrix", ALCHEMIST_STRING, "''", "", 0, NULL},
    {"silent", ALCHEMIST_BOOL, "False", "", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_parameter rank_parameters[] = {{"rank", ALCHEMIST_INT, NULL, "", 0, NULL}, ALCHEMIST_END};
static const alchemist_parameter sleep_parameters[] = {
    {"seconds", ALCHEMIST_FLOAT | ALCHEMIST_INT, NULL, "", 0, NULL}, ALCHEMIST_END};
static const alchemist_parameter misuse_parameters[] = {{"how", ALCHEMIST_STRING, NULL, "", 0, NULL}, ALCHEMIST_END};
static const alchemist_result misuse_results[] = {
    {"string", ALCHEMIST_STRING, ""},
    {"array", ALCHEMIST_ARRAY | ALCHEMIST_NONE, ""},
    {"matrix", ALCHEMIST_MATRIX | ALCHEMIST_NONE, ""},
    ALCHEMIST_END,
};
static const alchemist_result surroundings_results[] = {
    {"sum", ALCHEMIST_INT, ""}, {"scratch", ALCHEMIST_STRING, ""}, ALCHEMIST_END};

static const alchemist_task tasks[] = {
    {"echo", "Return the arguments.", echo_parameters, echo_results, run_echo},
    {"getters", "Return results computed from the arguments.", getters_parameters, echo_results, run_getters},
    {"places", "Return where the elements lie.", matrix_parameters, places_results, run_places},
    {"facts", "Return the description of a matrix.", matrix_parameters, facts_results, run_facts},
    {"laid_out", "Return the description of a matrix that arrives in a certain layout.", laid_out_parameters, facts_results, run_facts},
    {"there_and_back", "Return a copy.", there_parameters, matrix_results, run_there_and_back},
    {"zeros", "Return a matrix of zeros.", zeros_parameters, zeros_results, run_zeros},
    {"fail", "Fail with a code.", fail_parameters, NULL, run_fail},
    {"fail_on", "Fail on one rank.", rank_parameters, NULL, run_fail_on},
    {"fail_together", "Fail on rank 1, and report that on the other ranks.", NULL, NULL, run_fail_together},
    {"sleep", "Be busy for some seconds.", sleep_parameters, NULL, run_sleep},
    {"misuse", "Use the interface wrongly.", misuse_parameters, misuse_results, run_misuse},
    {"surroundings", "Log, and return the scratch directory.", NULL, surroundings_results, run_surroundings},
    {"forever", "Run until cancelled.", NULL, NULL, run_forever},
    {"older", "Run as with older workers.", NULL, NULL, run_older},
    ALCHEMIST_END,
};

ALCHEMIST_LIBRARY("2.1", "A library for tests.", tasks, NULL)
