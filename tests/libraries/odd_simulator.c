/* A simulator for tests; a parameter selects its fault and the function with the fault. */
#include <math.h>
#include <stdlib.h>

#include "alchemist_ali.h"

typedef struct {
    const char *how;
    int64_t n; /* order of the matrix that a step makes and does not free */
    double state;
} odd;

static int living = 0;
static const char *const ways[] = {"none", "create", "reset", "step", "get_state", "spaces", "dimensions", "size",
                                   "bounds", "scratch", "forever", "diverge", "get_info", "describe_field", "get_field",
                                   "no_field", "flat_field", "snapshot", "restore", "negative_snapshot"};

static int fail_if(alchemist_call *call, const odd *o, const char *where)
{
    return strcmp(o->how, where) == 0 ? alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "told to fail in %s", where)
                                      : ALCHEMIST_OK;
}

static int create(alchemist_call *call, void **simulation)
{
    const char *how = alchemist_get_string(call, "how");
    odd *o;
    if (strcmp(how, "create") == 0)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "told to fail in create");
    o = calloc(1, sizeof *o);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(how, ways[i]) == 0)
            o->how = ways[i];
    o->n = alchemist_get_int(call, "n");
    living++;
    *simulation = o;
    return ALCHEMIST_OK;
}

static int spaces(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation)
{
    static const double lows[] = {-1.0, -2.0}, highs[] = {1.0, 2.0};
    const odd *o = simulation;
    action->ndim = strcmp(o->how, "dimensions") == 0 ? ALCHEMIST_MAX_DIMENSIONS + 1 : 2;
    action->shape[0] = 1;
    action->shape[1] = strcmp(o->how, "size") == 0 ? -2 : 2;
    action->lows = lows, action->highs = highs;
    observation->low = strcmp(o->how, "bounds") == 0 ? 1.0 : -HUGE_VAL; /* a box of no dimensions: one number */
    observation->high = strcmp(o->how, "bounds") == 0 ? 0.0 : HUGE_VAL;
    return fail_if(call, o, "spaces");
}

static int reset(alchemist_call *call, void *simulation, const int64_t *seed)
{
    odd *o = simulation;
    o->state = seed != NULL ? (double)*seed : -1.0;
    return fail_if(call, o, "reset");
}

static int step(alchemist_call *call, void *simulation, const double *action)
{
    odd *o = simulation;
    if (o->n > 0) {
        alchemist_matrix *A = alchemist_new(call, o->n, o->n, ALCHEMIST_FLOAT64, "STAR_STAR");
        if (A == NULL)
            return ALCHEMIST_NO_MEMORY;
        memset(A->local, 0, (size_t)(A->rows.size * A->cols.size * A->itemsize));
    }
    alchemist_progress(call, 1.0, 1.0, "one step");
    if (strcmp(o->how, "scratch") == 0)
        return alchemist_fail(call, ALCHEMIST_OWN_ERROR, "scratch=%s", alchemist_scratch(call));
    while (strcmp(o->how, "forever") == 0)
        if (alchemist_check_cancelled(call) != ALCHEMIST_OK)
            return ALCHEMIST_ERROR;
    o->state += action[0] + 10.0 * action[1];
    if (strcmp(o->how, "diverge") == 0)
        return alchemist_fail(call, ALCHEMIST_DIVERGED, "told to diverge");
    return fail_if(call, o, "step");
}

static int get_state(alchemist_call *call, void *simulation, double *state)
{
    *state = ((const odd *)simulation)->state;
    return fail_if(call, simulation, "get_state");
}

static int get_score(alchemist_call *call, void *simulation, double *score)
{
    (void)call, (void)simulation;
    *score = living;
    return ALCHEMIST_OK;
}

static const char *const info_names[] = {"rank", "state", NULL};

static int get_info(alchemist_call *call, void *simulation, double *values)
{
    values[0] = call->rank;
    values[1] = ((const odd *)simulation)->state;
    return fail_if(call, simulation, "get_info");
}

static int describe_field(alchemist_call *call, void *simulation, alchemist_field *field)
{
    const odd *o = simulation;
    field->ny = strcmp(o->how, "no_field") == 0 ? 0 : 2;
    field->nx = 3;
    field->name = "oddity", field->unit = "1";
    field->low = strcmp(o->how, "flat_field") == 0 ? 0.0 : -2.0;
    return fail_if(call, o, "describe_field");
}

static int get_field(alchemist_call *call, void *simulation, double *values)
{
    const odd *o = simulation;
    if ((values == NULL) != (call->rank > 0))
        return alchemist_fail(call, ALCHEMIST_ERROR, "values must be NULL except on rank 0");
    for (int i = 0; values != NULL && i < 6; i++)
        values[i] = i == 5 ? NAN : o->state + i;
    return fail_if(call, o, "get_field");
}

/* Higher ranks have longer parts. */
static int snapshot_bytes(alchemist_call *call, void *simulation, int64_t *bytes)
{
    const odd *o = simulation;
    *bytes = strcmp(o->how, "negative_snapshot") == 0 && call->rank == call->size - 1 ? -1 : (1 + call->rank) * 8 + o->n;
    return ALCHEMIST_OK;
}

static int snapshot(alchemist_call *call, void *simulation, void *part)
{
    for (int i = 0; i <= call->rank; i++)
        ((double *)part)[i] = ((const odd *)simulation)->state;
    return fail_if(call, simulation, "snapshot");
}

static int restore(alchemist_call *call, void *simulation, const void *part)
{
    ((odd *)simulation)->state = ((const double *)part)[call->rank];
    return fail_if(call, simulation, "restore");
}

static double work_per_step(void *simulation) { return (double)((const odd *)simulation)->n; }

static void destroy(void *simulation)
{
    living--;
    free(simulation);
}

static const alchemist_parameter parameters[] = {{"how", ALCHEMIST_STRING, "'none'", "", 0, NULL},
                                                 {"n", ALCHEMIST_INT, "0", "", 0, NULL},
                                                 ALCHEMIST_END};
static const alchemist_simulator simulator = {"Odd", "", parameters, create, spaces, reset, step, get_state,
                                              get_score, NULL, destroy, info_names, get_info, describe_field,
                                              get_field, snapshot_bytes, snapshot, restore, "matrix", work_per_step};

ALCHEMIST_LIBRARY("", "", NULL, &simulator)
