/* The heat equation on a ring that an agent heats: a simulator in C, with a halo exchange.
 *
 *     mpicc -O2 -shared -fPIC $(python -m alchemist_ray.mpi_backend.ali --cflags) heat.c -o heat.so -lm
 *
 * u_t = diffusivity u_xx + q on 0 <= x < 1, by central differences and explicit Euler steps. Each rank has a run of
 * consecutive points and a ghost point at each end.
 */
#include <math.h>
#include <stdlib.h>

#include "alchemist_ali.h"

enum { ACTUATORS = 4, MODES = 3 };

typedef struct {
    MPI_Comm comm;
    int rank, size;
    int64_t n, sensors, steps, done, first, count;
    double dt, ratio; /* ratio = diffusivity dt / dx^2 */
    double *u, *next; /* count + 2 points: the ghosts are 0 and count + 1 */
} heat;

static const char *const actuator_names[ACTUATORS] = {"first quarter", "second quarter", "third quarter",
                                                      "last quarter"};
static const char *const actuator_units[ACTUATORS] = {"K/s", "K/s", "K/s", "K/s"};

static void destroy(void *simulation)
{
    heat *h = simulation;
    MPI_Comm_free(&h->comm);
    free(h->u);
    free(h->next);
    free(h);
}

static int create(alchemist_call *call, void **simulation)
{
    const int64_t n = alchemist_get_int(call, "n"), sensors = alchemist_get_int(call, "sensors");
    const double dt = alchemist_get_float(call, "dt");
    const double ratio = alchemist_get_float(call, "diffusivity") * dt * (double)n * (double)n;
    heat *h;
    int made;
    if (n < call->size || sensors < 1 || sensors > n)
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "n must be at least %d, and sensors in 1..n", call->size);
    if (!(ratio > 0.0 && ratio <= 0.5))
        return alchemist_fail(call, ALCHEMIST_VALUE_ERROR,
                              "diffusivity dt n^2 is %g, but an explicit step is stable only for 0..0.5", ratio);
    h = calloc(1, sizeof *h);
    made = h != NULL;
    if (made) {
        h->rank = call->rank, h->size = call->size;
        h->n = n, h->sensors = sensors, h->steps = alchemist_get_int(call, "steps");
        h->dt = dt, h->ratio = ratio;
        h->first = n * call->rank / call->size;
        h->count = n * (call->rank + 1) / call->size - h->first;
        h->u = calloc((size_t)h->count + 2, sizeof *h->u);
        h->next = calloc((size_t)h->count + 2, sizeof *h->next);
        made = h->u != NULL && h->next != NULL;
    }
    MPI_Allreduce(MPI_IN_PLACE, &made, 1, MPI_INT, MPI_MIN, call->comm); /* either all ranks go on, or none */
    if (!made) {
        if (h != NULL)
            free(h->u), free(h->next), free(h);
        return alchemist_fail(call, ALCHEMIST_NO_MEMORY, "no room for %lld points", (long long)n);
    }
    MPI_Comm_dup(call->comm, &h->comm); /* its own communicator, so that no message of another task interferes */
    *simulation = h;
    return ALCHEMIST_OK;
}

static int spaces(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation)
{
    const heat *h = simulation;
    (void)call;
    action->ndim = 1, action->shape[0] = ACTUATORS;
    action->low = -1.0, action->high = 1.0;
    action->names = actuator_names, action->units = actuator_units;
    observation->ndim = 1, observation->shape[0] = h->sensors;
    observation->low = -HUGE_VAL, observation->high = HUGE_VAL;
    return ALCHEMIST_OK;
}

/* A sum of sines. Knuth's linear congruential generator (MMIX) makes their amplitudes in -1 .. 1 from the seed. */
static int reset(alchemist_call *call, void *simulation, const int64_t *seed)
{
    heat *h = simulation;
    uint64_t random = seed != NULL ? (uint64_t)*seed : 0;
    double amplitude[MODES];
    (void)call;
    for (int k = 0; k < MODES; k++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        amplitude[k] = (double)(random >> 11) / 4503599627370496.0 - 1.0;
    }
    for (int64_t i = 0; i < h->count; i++) {
        h->u[i + 1] = 0.0;
        for (int k = 0; k < MODES; k++)
            h->u[i + 1] += amplitude[k] * sin(2.0 * acos(-1.0) * (k + 1) * (double)(h->first + i) / (double)h->n);
    }
    h->done = 0;
    return ALCHEMIST_OK;
}

static int step(alchemist_call *call, void *simulation, const double *action)
{
    heat *h = simulation;
    const int before = (h->rank + h->size - 1) % h->size, after = (h->rank + 1) % h->size;
    double *swapped;
    (void)call;
    MPI_Sendrecv(h->u + h->count, 1, MPI_DOUBLE, after, 0, h->u, 1, MPI_DOUBLE, before, 0, h->comm, MPI_STATUS_IGNORE);
    MPI_Sendrecv(h->u + 1, 1, MPI_DOUBLE, before, 1, h->u + h->count + 1, 1, MPI_DOUBLE, after, 1, h->comm,
                 MPI_STATUS_IGNORE);
    for (int64_t i = 1; i <= h->count; i++)
        h->next[i] = h->u[i] + h->ratio * (h->u[i - 1] - 2.0 * h->u[i] + h->u[i + 1]) +
                     h->dt * action[(h->first + i - 1) * ACTUATORS / h->n];
    swapped = h->u, h->u = h->next, h->next = swapped;
    h->done++;
    return ALCHEMIST_OK;
}

/* The temperatures at the sensors, which are spread evenly. */
static int get_state(alchemist_call *call, void *simulation, double *state)
{
    const heat *h = simulation;
    (void)call;
    for (int64_t s = 0; s < h->sensors; s++) {
        const int64_t at = s * h->n / h->sensors - h->first;
        state[s] = at >= 0 && at < h->count ? h->u[at + 1] : 0.0;
    }
    MPI_Allreduce(MPI_IN_PLACE, state, (int)h->sensors, MPI_DOUBLE, MPI_SUM, h->comm);
    return ALCHEMIST_OK;
}

/* Minus the mean square of the temperature: the agent should keep the ring at 0. */
static int get_score(alchemist_call *call, void *simulation, double *score)
{
    const heat *h = simulation;
    (void)call;
    *score = 0.0;
    for (int64_t i = 1; i <= h->count; i++)
        *score -= h->u[i] * h->u[i] / (double)h->n;
    MPI_Allreduce(MPI_IN_PLACE, score, 1, MPI_DOUBLE, MPI_SUM, h->comm);
    return ALCHEMIST_OK;
}

static int is_finished(alchemist_call *call, void *simulation, int *finished)
{
    const heat *h = simulation;
    (void)call;
    *finished = h->done >= h->steps;
    return ALCHEMIST_OK;
}

static const char *const info_names[] = {"time", "mean_temperature", NULL};

static int get_info(alchemist_call *call, void *simulation, double *values)
{
    const heat *h = simulation;
    double sum = 0.0;
    (void)call;
    for (int64_t i = 1; i <= h->count; i++)
        sum += h->u[i] / (double)h->n;
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, h->comm);
    values[0] = (double)h->done * h->dt, values[1] = sum;
    return ALCHEMIST_OK;
}

/* A picture of one row. */
static int describe_field(alchemist_call *call, void *simulation, alchemist_field *field)
{
    (void)call;
    field->ny = 1, field->nx = ((const heat *)simulation)->n;
    field->name = "temperature", field->unit = "K";
    return ALCHEMIST_OK;
}

static int get_field(alchemist_call *call, void *simulation, double *values)
{
    const heat *h = simulation;
    if (h->rank != 0) {
        MPI_Send(h->u + 1, (int)h->count, MPI_DOUBLE, 0, 2, h->comm);
        return ALCHEMIST_OK;
    }
    memcpy(values, h->u + 1, (size_t)h->count * sizeof *values);
    for (int other = 1; other < call->size; other++) {
        const int64_t first = h->n * other / h->size, count = h->n * (other + 1) / h->size - first;
        MPI_Recv(values + first, (int)count, MPI_DOUBLE, other, 2, h->comm, MPI_STATUS_IGNORE);
    }
    return ALCHEMIST_OK;
}

/* All data needed to continue: the number of steps, and the temperatures of this rank's points. */
static int snapshot_bytes(alchemist_call *call, void *simulation, int64_t *bytes)
{
    const heat *h = simulation;
    (void)call;
    *bytes = (int64_t)sizeof h->done + h->count * (int64_t)sizeof *h->u;
    return ALCHEMIST_OK;
}

static int snapshot(alchemist_call *call, void *simulation, void *part)
{
    const heat *h = simulation;
    (void)call;
    memcpy(part, &h->done, sizeof h->done);
    memcpy((char *)part + sizeof h->done, h->u + 1, (size_t)h->count * sizeof *h->u);
    return ALCHEMIST_OK;
}

static int restore(alchemist_call *call, void *simulation, const void *part)
{
    heat *h = simulation;
    (void)call;
    memcpy(&h->done, part, sizeof h->done);
    memcpy(h->u + 1, (const char *)part + sizeof h->done, (size_t)h->count * sizeof *h->u);
    return ALCHEMIST_OK;
}

static const alchemist_parameter parameters[] = {
    {"n", ALCHEMIST_INT, "128", "Points on the ring.", 0, NULL},
    {"diffusivity", ALCHEMIST_FLOAT, "0.01", "In m^2/s; the ring is 1 m long.", 0, NULL},
    {"dt", ALCHEMIST_FLOAT, "1e-3", "Length of a step in seconds.", 0, NULL},
    {"sensors", ALCHEMIST_INT, "16", "Number of temperatures in a state.", 0, NULL},
    {"steps", ALCHEMIST_INT, "1000", "Number of steps of an episode.", 0, NULL},
    ALCHEMIST_END,
};
static const alchemist_simulator simulator = {
    "Heat", "The heat equation on a ring, heated or cooled in four places.", parameters, create, spaces, reset, step,
    get_state, get_score, is_finished, destroy,
    info_names, get_info, describe_field, get_field, snapshot_bytes, snapshot, restore, NULL, NULL,
};

ALCHEMIST_LIBRARY("1.0", "The heat equation as a simulation.", NULL, &simulator)
