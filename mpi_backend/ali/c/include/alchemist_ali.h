/* alchemist_ali.h: the Alchemist-Library Interface in C.
 *
 * A library is a shared object that exports one function, alchemist_library(). The macro ALCHEMIST_LIBRARY defines it.
 * The function returns a static description of tasks, of a simulator, or of both. The library is not linked with
 * anything of Alchemist: a task gets a table of functions through its only argument.
 *
 *     #include "alchemist_ali.h"
 *
 *     static int run_scale(alchemist_call *call)
 *     {
 *         const alchemist_matrix *A = alchemist_get_matrix(call, "A");
 *         alchemist_matrix *B = alchemist_new_like(call, A, A->m, A->n, A->type);
 *         ...
 *         return alchemist_return_matrix(call, "B", B);
 *     }
 *
 * Every rank of a worker group runs the task at the same time, with equal arguments. Either all ranks call a function
 * marked *collective*, or none does; the other functions are local. Every rank returns the matrices. All other results
 * must be the same on every rank; or rank 0 returns them, and the other ranks return none at all. Pointers that a task
 * gets are valid until it returns. Values that it passes to Alchemist are copied, except matrices. One thread makes all
 * calls, the thread that calls MPI (MPI_THREAD_FUNNELED). The library's own threads must not call MPI or any function
 * declared here.
 *
 * An error is a code and a text. A task returns ALCHEMIST_OK, or the return value of alchemist_fail(). A failure cannot
 * be taken back once the library, or a function of Alchemist that could not do its work, has noted it: the task fails,
 * whatever it returns. A decision that depends on the elements of one rank needs a reduction before a rank returns, as
 * the other ranks would wait for it in MPI.
 *
 * Local blocks are C-ordered. ScaLAPACK needs Fortran order, and sees them as the transposed matrix on the transposed
 * grid: see alchemist_scalapack().
 *
 * The header is C99 and C++98. Fortran: all types here are interoperable (iso_c_binding), and enumerations are passed
 * as int32_t. Usually the tasks are described in C, and each task calls a Fortran procedure with bind(c) that takes
 * A->local, A->rows.size, A->cols.size, MPI_Comm_c2f(call->comm) and so on.
 *
 * ABI: ALCHEMIST_ABI_VERSION is part of the description. Workers accept libraries of their own version and of version
 * 1, and refuse others. Within a version, functions are only added, at the end of alchemist_api and of
 * alchemist_simulator, and nothing else changes. Each of the two structures contains its length. If the workers are
 * older than the library, alchemist_api may have fewer functions than the header declares. A function below that calls
 * a later addition must first ask alchemist_has(), and note a failure if the workers lack it. Workers do not call
 * functions of a simulator that they do not know, and functions that a simulator is too old to have count as NULL. In
 * version 1, alchemist_simulator ended with destroy, alchemist_library_description ended with simulator, and
 * ALCHEMIST_DIVERGED did not exist.
 */
#ifndef ALCHEMIST_ALI_H
#define ALCHEMIST_ALI_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ALCHEMIST_ABI_VERSION 2
#define ALCHEMIST_MAX_DIMENSIONS 8

#if defined(__GNUC__)
#define ALCHEMIST_EXPORT __attribute__((visibility("default")))
#define ALCHEMIST_PRINTF(text, rest) __attribute__((format(printf, text, rest)))
#else
#define ALCHEMIST_EXPORT
#define ALCHEMIST_PRINTF(text, rest)
#endif

/* --- closed sets ---------------------------------------------------------------------------------------------- */

/* Kinds of arguments and results; join several kinds of a parameter with |. */
enum {
    ALCHEMIST_NONE = 1,    /* Python's None: ALCHEMIST_INT | ALCHEMIST_NONE is an int or None */
    ALCHEMIST_BOOL = 2,
    ALCHEMIST_INT = 4,     /* 64 bits */
    ALCHEMIST_FLOAT = 8,   /* double */
    ALCHEMIST_COMPLEX = 16,
    ALCHEMIST_STRING = 32, /* UTF-8, ended by a zero byte */
    ALCHEMIST_ARRAY = 64,  /* small, the same on every rank */
    ALCHEMIST_MATRIX = 128 /* distributed */
};

/* Types of the elements of matrices and arrays; join several types of a parameter with |. */
enum {
    ALCHEMIST_FLOAT64 = 1,
    ALCHEMIST_FLOAT32 = 2,
    ALCHEMIST_COMPLEX128 = 4, /* two doubles, the real part first */
    ALCHEMIST_COMPLEX64 = 8,
    ALCHEMIST_INT64 = 16,
    ALCHEMIST_INT32 = 32,
    ALCHEMIST_BOOL8 = 64 /* one byte, 0 or 1 */
};

/* The codes that a task returns, and the errors that the caller gets for them. */
enum {
    ALCHEMIST_OK = 0,
    ALCHEMIST_ERROR = 1,          /* RemoteTaskError: any other failure */
    ALCHEMIST_ARGUMENT_ERROR = 2, /* ArgumentError: of the wrong type */
    ALCHEMIST_VALUE_ERROR = 3,    /* ArgumentValueError: out of range, or shapes do not fit */
    ALCHEMIST_NON_FINITE = 4,     /* NonFiniteError: alchemist_fail_matrix() names the matrix */
    ALCHEMIST_SINGULAR = 5,       /* SingularMatrixError: alchemist_fail_matrix() names the matrix and the pivot */
    ALCHEMIST_NOT_CONVERGED = 6,  /* ConvergenceError */
    ALCHEMIST_LAYOUT_ERROR = 7,   /* LayoutError */
    ALCHEMIST_NO_MEMORY = 8,      /* RemoteTaskError, MemoryError */
    ALCHEMIST_PEER_FAILED = 9,    /* PeerFailedError: alchemist_fail_peer() names the rank that failed */
    ALCHEMIST_DIVERGED = 10,      /* SimulationDivergedError: it must be reset; all ranks agree by a reduction first */
    ALCHEMIST_OWN_ERROR = 100     /* and above: RemoteTaskError with the library's own code */
};

/* Levels of alchemist_log(). */
enum { ALCHEMIST_DEBUG = 10, ALCHEMIST_INFO = 20, ALCHEMIST_WARNING = 30, ALCHEMIST_ERROR_LEVEL = 40 };

/* --- values --------------------------------------------------------------------------------------------------- */

/* An array, C-ordered and contiguous. Arguments are read-only. */
typedef struct alchemist_array {
    int32_t type;
    int32_t ndim;
    int64_t size; /* number of elements */
    int64_t shape[ALCHEMIST_MAX_DIMENSIONS];
    void *elements;
} alchemist_array;

/* The indices of one axis of a matrix that this rank holds. Blocks of `block` consecutive indices go to `stride`
 * positions in turn; this rank holds the blocks of position `position`. The size is 0 on a rank that holds no elements.
 */
typedef struct alchemist_axis {
    int64_t extent; /* number of indices on all ranks */
    int64_t size;   /* number of indices on this rank */
    int64_t block;
    int64_t stride;
    int64_t position;
} alchemist_axis;

/* A distributed matrix, as one rank sees it. */
typedef struct alchemist_matrix {
    int64_t m, n; /* rows and columns of the whole matrix */
    alchemist_axis rows, cols;
    void *local; /* element (iloc, jloc) of this rank's block: local[iloc * ld + jloc], in units of `itemsize` */
    int64_t ld;  /* cols.size */
    int32_t type;
    int32_t itemsize;
    const char *pair; /* Elemental's name of the layout, e.g. "MC_MR" */
    int64_t mb, nb;   /* rows and columns of a block */
    int32_t nprow, npcol, myrow, mycol; /* the grid of processes, numbered column by column */
    int32_t row_align, col_align;       /* the positions that get the first block of rows and of columns */
    int32_t redundant; /* 1 if several ranks hold copies of the same elements, as in layouts with STAR */
    int32_t is_source; /* of all ranks that hold the same elements, 1 on one: sum over the ranks with 1 */
    int64_t key;       /* for Alchemist */
} alchemist_matrix;

/* An argument or result. It has exactly one kind; the fields of the other kinds are zero. */
typedef struct alchemist_value {
    int32_t kind;
    int32_t truth;       /* ALCHEMIST_BOOL: 0 or 1 */
    int64_t integer;     /* ALCHEMIST_INT */
    double real, imag;   /* ALCHEMIST_FLOAT, ALCHEMIST_COMPLEX */
    const char *string;  /* ALCHEMIST_STRING */
    const alchemist_array *array;
    const alchemist_matrix *matrix;
} alchemist_value;

/* --- the description of a library ----------------------------------------------------------------------------- */

/* One parameter. An array of them ends with ALCHEMIST_END. */
typedef struct alchemist_parameter {
    const char *name;
    int32_t kinds;
    const char *default_value; /* in Python's notation: "2.0", "True", "None", "'fast'", "[1, 2]"; NULL: required */
    const char *doc;
    int32_t types;      /* element types: arrays are converted, matrices of other types are refused; 0: any type */
    const char *layout; /* in which a matrix arrives: "VC_STAR", "MC_MR:64" (blocks of 64 x 64), "MC_MR:64x32" */
} alchemist_parameter;

/* One result. An array of them ends with ALCHEMIST_END. Several results reach the caller as a tuple, in this order. */
typedef struct alchemist_result {
    const char *name;
    int32_t kinds;
    const char *doc;
} alchemist_result;

typedef struct alchemist_call alchemist_call;

/* One task. An array of them ends with ALCHEMIST_END. */
typedef struct alchemist_task {
    const char *name;
    const char *doc;
    const alchemist_parameter *parameters; /* NULL: none */
    const alchemist_result *results;       /* NULL: none, the caller gets None */
    int (*run)(alchemist_call *call);      /* collective */
} alchemist_task;

#define ALCHEMIST_END {0}

/* The arrays between two bounds: the actions that a simulation takes, or the states that it returns. */
typedef struct alchemist_box {
    int32_t ndim;
    int64_t shape[ALCHEMIST_MAX_DIMENSIONS];
    double low, high;          /* the bounds of every component; infinite: none */
    const double *lows, *highs; /* the bounds of each component, in C order; NULL: low and high */
    const char *const *names;  /* of each component, in C order; NULL: none */
    const char *const *units;
} alchemist_box;

/* A picture of a simulation as numbers; the client colours it. */
typedef struct alchemist_field {
    int64_t ny, nx;
    const char *name, *unit; /* of the values; NULL: none */
    double low, high;        /* values at the ends of the colour scale; equal: the smallest and the largest value */
} alchemist_field;

/* A simulation that is stepped from outside. The client makes any number of simulations, and controls them with the
 * tasks create, reset, step, get_state, get_score, get_field, get_spaces, snapshot, restore and close. Every function
 * that takes a call is collective, and returns ALCHEMIST_OK or the return value of alchemist_fail(). Each function gets
 * a call of its own, which ends when the function returns. The call offers the same as the call of a task: matrices as
 * work space, progress, cancellation, the scratch directory, the log. Only create has arguments, and no function has
 * results. */
typedef struct alchemist_simulator {
    const char *name;
    const char *doc;
    const alchemist_parameter *parameters; /* of create; no matrices; NULL: none */
    int (*create)(alchemist_call *call, void **simulation);
    /* Fills both boxes, which are zero at first and are copied afterwards. Called once, after create. */
    int (*spaces)(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation);
    int (*reset)(alchemist_call *call, void *simulation, const int64_t *seed); /* NULL: any seed */
    int (*step)(alchemist_call *call, void *simulation, const double *action); /* the action lies in its box */
    int (*get_state)(alchemist_call *call, void *simulation, double *state);   /* fill it on rank 0 */
    int (*get_score)(alchemist_call *call, void *simulation, double *score);   /* fill it on rank 0 */
    int (*is_finished)(alchemist_call *call, void *simulation, int *finished); /* fill it on rank 0; NULL: never */
    void (*destroy)(void *simulation);                                         /* NULL: nothing to release */

    /* More numbers about the last step: one for each name, filled on rank 0. */
    const char *const *info_names; /* ends with NULL */
    int (*get_info)(alchemist_call *call, void *simulation, double *values);

    /* A picture of the present state. describe_field is called on every rank before each get_field, with a field that
     * is zero. The ny * nx values are filled on rank 0; on other ranks the pointer is NULL. The first row is the top of
     * the picture. NaN is drawn as a solid. */
    int (*describe_field)(alchemist_call *call, void *simulation, alchemist_field *field);
    int (*get_field)(alchemist_call *call, void *simulation, double *values);

    /* All data needed to continue bit for bit, including the state of random generators. Each rank has its own part,
     * with the size that snapshot_bytes returns, aligned as by malloc(). restore gets the part that snapshot wrote, for
     * this simulation or another with the same parameters and number of ranks. It may be called before the first
     * reset. */
    int (*snapshot_bytes)(alchemist_call *call, void *simulation, int64_t *bytes);
    int (*snapshot)(alchemist_call *call, void *simulation, void *part);
    int (*restore)(alchemist_call *call, void *simulation, const void *part);

    /* The work of one step on all ranks, in the usual unit of such codes, such as "MLUP". Local. */
    const char *work_unit;
    double (*work_per_step)(void *simulation);
} alchemist_simulator;

/* A library. Use ALCHEMIST_LIBRARY. */
typedef struct alchemist_library_description {
    int32_t abi_version;
    int32_t comm_bytes; /* sizeof(MPI_Comm), which differs between families of MPI */
    const char *version;
    const char *doc;
    const alchemist_task *tasks;          /* NULL: none */
    const alchemist_simulator *simulator; /* NULL: none */
    int64_t simulator_bytes;              /* sizeof(alchemist_simulator), which tells the functions that it may have */
} alchemist_library_description;

ALCHEMIST_EXPORT const alchemist_library_description *alchemist_library(void);

#define ALCHEMIST_LIBRARY(version, doc, tasks, simulator)                                                       \
    const alchemist_library_description *alchemist_library(void)                                                \
    {                                                                                                           \
        static const alchemist_library_description description = {                                              \
            ALCHEMIST_ABI_VERSION, (int32_t)sizeof(MPI_Comm), version, doc, tasks, simulator,                   \
            (int64_t)sizeof(alchemist_simulator)};                                                              \
        return &description;                                                                                    \
    }

/* --- a running call ------------------------------------------------------------------------------------------- */

/* The functions that Alchemist offers to a task; the functions below call them. A function that returns int returns
 * ALCHEMIST_OK or another code. A function that returns a matrix returns NULL if it fails. */
typedef struct alchemist_api {
    int64_t size; /* bytes of this structure in the workers: see alchemist_has() */
    int (*fail)(alchemist_call *call, int32_t code, const char *argument, int64_t index, const char *text);
    void (*log)(alchemist_call *call, int32_t level, const char *text);
    void (*progress)(alchemist_call *call, double done, double total, const char *text);
    int (*check_cancelled)(alchemist_call *call);
    int (*set_result)(alchemist_call *call, const char *name, const alchemist_value *value);
    alchemist_matrix *(*new_matrix)(alchemist_call *call, int64_t m, int64_t n, int32_t type, const char *layout,
                                    const alchemist_matrix *like);
    alchemist_matrix *(*copy_matrix)(alchemist_call *call, const alchemist_matrix *A, const char *layout,
                                     int32_t transposed);
    int (*scalapack)(alchemist_call *call, const alchemist_matrix *A, int32_t *descriptor);
    const char *(*scratch)(alchemist_call *call);
} alchemist_api;

struct alchemist_call {
    const alchemist_api *api;
    MPI_Comm comm; /* of this worker group; MPI returns errors as codes (MPI_ERRORS_RETURN) */
    int32_t rank, size;
    int32_t count; /* number of arguments, which are in the order of their description */
    const alchemist_parameter *parameters;
    const alchemist_value *arguments;
    int64_t key; /* for Alchemist */
};

/* Whether the workers have the function of alchemist_api with this name. */
#define alchemist_has(call, function) ((call)->api->size > (int64_t)offsetof(alchemist_api, function))

/* --- errors, log, progress ------------------------------------------------------------------------------------ */

/* Note a failure with a text in printf's format; return `code`. The first failure of a call counts. */
ALCHEMIST_PRINTF(3, 4)
static inline int alchemist_fail(alchemist_call *call, int code, const char *format, ...)
{
    char text[1024];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    return call->api->fail(call, code, NULL, 0, text);
}

/* Note that the matrix argument `name` is singular (`pivot`, from 1, is zero) or contains NaN or Inf; return `code`. */
static inline int alchemist_fail_matrix(alchemist_call *call, int code, const char *name, int64_t pivot)
{
    return call->api->fail(call, code, name, pivot, "");
}

/* Note that this rank stops because rank `failed` has failed; that rank reports the reason. Return a code. */
static inline int alchemist_fail_peer(alchemist_call *call, int failed)
{
    return call->api->fail(call, ALCHEMIST_PEER_FAILED, NULL, failed, "");
}

/* Write a line to the log of this worker. */
ALCHEMIST_PRINTF(3, 4)
static inline void alchemist_log(alchemist_call *call, int level, const char *format, ...)
{
    char text[1024];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    call->api->log(call, level, text);
}

/* Tell the caller how far the task is: `done` of `total`, in any unit. Only calls of rank 0 with finite numbers are
 * sent. */
static inline void alchemist_progress(alchemist_call *call, double done, double total, const char *text)
{
    if (call->rank == 0)
        call->api->progress(call, done, total, text);
}

/* Return a code other than ALCHEMIST_OK on all ranks if the caller has cancelled the task or its time is up. The task
 * then releases its resources and returns that code. Collective. */
static inline int alchemist_check_cancelled(alchemist_call *call) { return call->api->check_cancelled(call); }

/* Return the path of this rank's directory for temporary files, which is removed when the workers end; or NULL. */
static inline const char *alchemist_scratch(alchemist_call *call) { return call->api->scratch(call); }

/* --- arguments ------------------------------------------------------------------------------------------------ */

/* Return the argument `name`, or NULL and note a failure if no parameter has that name. */
static inline const alchemist_value *alchemist_argument(alchemist_call *call, const char *name)
{
    int32_t position;
    for (position = 0; position < call->count; position++)
        if (strcmp(call->parameters[position].name, name) == 0)
            return &call->arguments[position];
    alchemist_fail(call, ALCHEMIST_ERROR, "the library asked for the argument '%s', which it does not describe", name);
    return NULL;
}

/* Return the argument `name`, or NULL and note a failure if no parameter has that name or its value none of `kinds`. */
static inline const alchemist_value *alchemist_argument_of(alchemist_call *call, const char *name, int32_t kinds)
{
    const alchemist_value *value = alchemist_argument(call, name);
    if (value != NULL && (value->kind & kinds) == 0) {
        alchemist_fail(call, ALCHEMIST_ERROR, "the library asked for the argument '%s' as a kind that it does not have",
                       name);
        return NULL;
    }
    return value;
}

static inline int alchemist_is_none(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument(call, name);
    return value != NULL && value->kind == ALCHEMIST_NONE;
}

/* Return an argument; return 0 or NULL and note a failure if it does not exist or has another kind. */
static inline int alchemist_get_bool(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_BOOL);
    return value != NULL ? value->truth : 0;
}

static inline int64_t alchemist_get_int(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_INT);
    return value != NULL ? value->integer : 0;
}

static inline double alchemist_get_float(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_FLOAT | ALCHEMIST_INT);
    return value == NULL ? 0.0 : value->kind == ALCHEMIST_INT ? (double)value->integer : value->real;
}

static inline void alchemist_get_complex(alchemist_call *call, const char *name, double *real, double *imag)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_COMPLEX);
    *real = value != NULL ? value->real : 0.0;
    *imag = value != NULL ? value->imag : 0.0;
}

static inline const char *alchemist_get_string(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_STRING);
    return value != NULL ? value->string : NULL;
}

static inline const alchemist_array *alchemist_get_array(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_ARRAY);
    return value != NULL ? value->array : NULL;
}

/* The elements of a matrix argument belong to the caller. A routine that overwrites them needs an alchemist_copy(). */
static inline const alchemist_matrix *alchemist_get_matrix(alchemist_call *call, const char *name)
{
    const alchemist_value *value = alchemist_argument_of(call, name, ALCHEMIST_MATRIX);
    return value != NULL ? value->matrix : NULL;
}

/* --- results -------------------------------------------------------------------------------------------------- */

/* Set a result; return ALCHEMIST_OK, or a code if no result with that name and kind is described. */
static inline int alchemist_return(alchemist_call *call, const char *name, const alchemist_value *value)
{
    return call->api->set_result(call, name, value);
}

static inline int alchemist_return_none(alchemist_call *call, const char *name)
{
    alchemist_value value = {ALCHEMIST_NONE, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_bool(alchemist_call *call, const char *name, int truth)
{
    alchemist_value value = {ALCHEMIST_BOOL, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.truth = truth != 0;
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_int(alchemist_call *call, const char *name, int64_t integer)
{
    alchemist_value value = {ALCHEMIST_INT, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.integer = integer;
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_float(alchemist_call *call, const char *name, double real)
{
    alchemist_value value = {ALCHEMIST_FLOAT, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.real = real;
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_complex(alchemist_call *call, const char *name, double real, double imag)
{
    alchemist_value value = {ALCHEMIST_COMPLEX, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.real = real;
    value.imag = imag;
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_string(alchemist_call *call, const char *name, const char *string)
{
    alchemist_value value = {ALCHEMIST_STRING, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.string = string;
    return alchemist_return(call, name, &value);
}

static inline int alchemist_return_array(alchemist_call *call, const char *name, const alchemist_array *array)
{
    alchemist_value value = {ALCHEMIST_ARRAY, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.array = array;
    return alchemist_return(call, name, &value);
}

/* An array of one dimension. */
static inline int alchemist_return_vector(alchemist_call *call, const char *name, int64_t size, int32_t type,
                                          const void *elements)
{
    alchemist_array array;
    memset(&array, 0, sizeof array);
    array.type = type;
    array.ndim = 1;
    array.size = array.shape[0] = size;
    array.elements = (void *)elements;
    return alchemist_return_array(call, name, &array);
}

/* Set a matrix from alchemist_new(), alchemist_new_like(), alchemist_copy() or alchemist_transpose(). On all ranks. */
static inline int alchemist_return_matrix(alchemist_call *call, const char *name, const alchemist_matrix *matrix)
{
    alchemist_value value = {ALCHEMIST_MATRIX, 0, 0, 0.0, 0.0, NULL, NULL, NULL};
    value.matrix = matrix;
    return alchemist_return(call, name, &value);
}

/* --- matrices ------------------------------------------------------------------------------------------------- */

/* Return the global index of a local one. */
static inline int64_t alchemist_global(const alchemist_axis *axis, int64_t iloc)
{
    return (iloc / axis->block * axis->stride + axis->position) * axis->block + iloc % axis->block;
}

/* Return the local index of a global one, or -1 if this rank does not hold it. */
static inline int64_t alchemist_local(const alchemist_axis *axis, int64_t i)
{
    if (i < 0 || i >= axis->extent || i / axis->block % axis->stride != axis->position)
        return -1;
    return i / axis->block / axis->stride * axis->block + i % axis->block;
}

/* Return an uninitialised m x n matrix in the layout of that name (as in alchemist_parameter). It lies in the memory
 * from which clients read results. The memory is freed at the end of the call, unless the matrix is returned. If a rank
 * has no room for its part, return NULL on every rank and note a failure. Collective. */
static inline alchemist_matrix *alchemist_new(alchemist_call *call, int64_t m, int64_t n, int32_t type,
                                              const char *layout)
{
    return call->api->new_matrix(call, m, n, type, layout, NULL);
}

/* The same, in the layout of `A`: its pair, grid, blocks and alignment. Collective. */
static inline alchemist_matrix *alchemist_new_like(alchemist_call *call, const alchemist_matrix *A, int64_t m,
                                                   int64_t n, int32_t type)
{
    return call->api->new_matrix(call, m, n, type, NULL, A);
}

/* Return a copy of `A` in a layout; NULL: in its own layout. Collective. */
static inline alchemist_matrix *alchemist_copy(alchemist_call *call, const alchemist_matrix *A, const char *layout)
{
    return call->api->copy_matrix(call, A, layout, 0);
}

/* Return the transpose of `A` in a layout; NULL: in the layout in which each element stays on its rank. Collective. */
static inline alchemist_matrix *alchemist_transpose(alchemist_call *call, const alchemist_matrix *A,
                                                    const char *layout)
{
    return call->api->copy_matrix(call, A, layout, 1);
}

/* Fill the nine integers of a ScaLAPACK descriptor of the *transpose* of `A`, with a BLACS context of its ranks.
 *
 * A row-major block-cyclic A on an r x c grid is, byte for byte, the column-major transpose of A on the transposed
 * grid. So p?potrf with this descriptor and uplo = 'U' makes the upper factor of A^T as Fortran sees it, which is the
 * lower factor of A as C sees it. A right-hand side B is passed as alchemist_transpose(call, B, ...). Layouts in which
 * ranks hold copies, or nothing, do not fit a BLACS grid: let the parameter arrive in "MC_MR:64" (most routines need
 * square blocks). A library is not linked with ScaLAPACK, BLACS, LAPACK and BLAS (32-bit integers): their undefined
 * symbols are found when it is loaded. Collective. */
static inline int alchemist_scalapack(alchemist_call *call, const alchemist_matrix *A, int32_t descriptor[9])
{
    return call->api->scalapack(call, A, descriptor);
}

#ifdef __cplusplus
}
#endif

#endif
