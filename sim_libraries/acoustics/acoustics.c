/* A simulator in C: sound in a closed room with absorbing walls and rigid obstacles, and loudspeakers that should make
 * a part of it quiet. The numerical scheme is in scheme.h, the parameters are read in parameters.h. */
#include <math.h>
#include <stdlib.h>

#include "alchemist_ali.h"
#include "parameters.h"
#include "room.h"
#include "scheme.h"

/* --- steps, states and pictures ------------------------------------------------------------------------------- */

static double sum_of_squares(const double *p, int64_t n)
{
    double lanes[8] = {0.0}; /* independent sums, which the compiler can vectorise */
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            lanes[k] += p[i + k] * p[i + k];
    for (; i < n; i++)
        lanes[i & 7] += p[i] * p[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* Add the squares of this rank's pressures in the quiet zone to one sum for each row of the zone. */
static void listen(const room *r, double *sums)
{
    const cells *q = &r->quiet;
    for (int64_t j = q->j0; j < q->j1; j++)
        if (j >= r->first && j < r->first + r->count)
            sums[j - q->j0] += sum_of_squares(r->p + (j - r->first + 1) * r->stride + q->i0, q->i1 - q->i0);
}

static double heard_in_row(const room *r, const microphone *m, int64_t j)
{
    const double *p;
    if (j < r->first || j >= r->first + r->count)
        return 0.0;
    p = r->p + (j - r->first + 1) * r->stride + m->i;
    return (1.0 - m->right) * p[0] + m->right * p[1];
}

/* Share the microphone pressures, the mean square over `substeps` substeps, and the energy among all ranks. One rank
 * contributes to each number, or two if a microphone lies between them, so the sums do not depend on their order.
 * Collective. */
static void share(room *r, int64_t substeps)
{
    const int64_t rows = r->quiet.j1 - r->quiet.j0, M = r->microphones;
    const double area = (double)(r->quiet.i1 - r->quiet.i0) * (double)rows;
    double *sums = r->shared + M, *energies = sums + rows, total = 0.0;
    for (int k = 0; k < M; k++) {
        const microphone *m = &r->mic[k];
        r->shared[k] = (1.0 - m->above) * heard_in_row(r, m, m->j) + m->above * heard_in_row(r, m, m->j + 1);
    }
    memset(energies, 0, (size_t)r->ny * sizeof *energies);
    for (int64_t j = 1; j <= r->count; j++)
        energies[r->first + j - 1] = energy(r, j);
    MPI_Allreduce(MPI_IN_PLACE, r->shared, (int)(M + rows + r->ny), MPI_DOUBLE, MPI_SUM, r->comm);
    memmove(r->heard + M, r->heard, (size_t)((r->history - 1) * M) * sizeof *r->heard);
    memcpy(r->heard, r->shared, (size_t)M * sizeof *r->heard);
    for (int64_t j = 0; j < rows; j++)
        total += sums[j];
    r->now.mean_square = total / (area * (double)substeps);
    r->now.energy = 0.0;
    for (int64_t j = 0; j < r->ny; j++)
        r->now.energy += energies[j];
    r->now.energy *= r->h * r->h / (2.0 * r->rho * r->c * r->c);
}

static int step(alchemist_call *call, void *simulation, const double *action)
{
    room *r = simulation;
    double *sums = r->shared + r->microphones;
    memset(sums, 0, (size_t)(r->quiet.j1 - r->quiet.j0) * sizeof *sums);
    for (int64_t s = 0; s < r->substeps; s++) {
        advance(r, action);
        listen(r, sums);
    }
    share(r, r->substeps);
    if (!isfinite(r->now.mean_square) || !isfinite(r->now.energy)) /* the same on all ranks */
        return alchemist_fail(call, ALCHEMIST_DIVERGED, "the pressure is no longer finite at t = %g s",
                              (double)r->now.substeps_done * r->dt);
    return ALCHEMIST_OK;
}

static int get_state(alchemist_call *call, void *simulation, double *state)
{
    const room *r = simulation;
    (void)call;
    memcpy(state, r->heard, (size_t)(r->history * r->microphones) * sizeof *state);
    return ALCHEMIST_OK;
}

static int get_score(alchemist_call *call, void *simulation, double *score)
{
    (void)call;
    *score = -((const room *)simulation)->now.mean_square;
    return ALCHEMIST_OK;
}

static const char *const info_names[] = {"time", "energy", "sound_level", NULL};

static int get_info(alchemist_call *call, void *simulation, double *values)
{
    const room *r = simulation;
    (void)call;
    values[0] = (double)r->now.substeps_done * r->dt;
    values[1] = r->now.energy;
    values[2] = 10.0 * log10(fmax(r->now.mean_square / (hearing * hearing), 1.0));
    return ALCHEMIST_OK;
}

static int describe_field(alchemist_call *call, void *simulation, alchemist_field *field)
{
    const room *r = simulation;
    (void)call;
    field->ny = r->ny, field->nx = r->nx;
    field->name = "sound pressure", field->unit = "Pa";
    field->low = -2.0 * r->pressure, field->high = 2.0 * r->pressure;
    return ALCHEMIST_OK;
}

static int get_field(alchemist_call *call, void *simulation, double *values)
{
    const room *r = simulation;
    MPI_Datatype rows;
    (void)call;
    MPI_Type_vector((int)r->count, (int)r->nx, (int)r->stride, MPI_DOUBLE, &rows);
    MPI_Type_commit(&rows);
    MPI_Gatherv(r->p + r->stride, 1, rows, values, r->counts, r->offsets, MPI_DOUBLE, 0, r->comm);
    MPI_Type_free(&rows);
    if (r->rank != 0)
        return ALCHEMIST_OK;
    for (int k = 0; k < r->obstacles; k++)
        for (int64_t j = r->obstacle[k].j0; j < r->obstacle[k].j1; j++)
            for (int64_t i = r->obstacle[k].i0; i < r->obstacle[k].i1; i++)
                values[j * r->nx + i] = NAN;
    for (int64_t j = 0; j < r->ny / 2; j++) /* the first row of the picture is the top of the room */
        for (int64_t i = 0; i < r->nx; i++) {
            const double lower = values[j * r->nx + i];
            values[j * r->nx + i] = values[(r->ny - 1 - j) * r->nx + i];
            values[(r->ny - 1 - j) * r->nx + i] = lower;
        }
    return ALCHEMIST_OK;
}

/* --- the beginning of an episode ------------------------------------------------------------------------------ */

/* Return a random number, uniform in 0 .. 1, by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
static double draw(room *r)
{
    uint64_t z = r->now.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

/* Return the initial pressure: a pulse around a point that the seed draws, or a mode of the rigid room. */
static double initial_pressure(const room *r, int64_t i, int64_t j, const double *centre)
{
    const double x = ((double)i + 0.5) * r->h, y = ((double)j + 0.5) * r->h;
    if (r->noise == MODE)
        return r->pressure * cos(pi * (double)r->modes[0] * x / ((double)r->nx * r->h)) *
               cos(pi * (double)r->modes[1] * y / ((double)r->ny * r->h));
    return r->pressure * exp(-((x - centre[0]) * (x - centre[0]) + (y - centre[1]) * (y - centre[1])) /
                             (8.0 * r->radius * r->radius));
}

/* Set p(0), and set u(-1/2) such that the air is at rest at t = 0: to minus half the change of u in a substep. */
static void begin_with_pressure(room *r, const double *centre)
{
    const double lambda = r->lambda;
    for (int64_t j = 0; j < r->count; j++)
        for (int64_t i = 0; i < r->nx; i++)
            if (!is_solid(r, i, r->first + j))
                r->p[(j + 1) * r->stride + i] = initial_pressure(r, i, r->first + j, centre);
    MPI_Startall(4, r->halo);
    MPI_Waitall(4, r->halo, MPI_STATUSES_IGNORE);
    r->lambda = -0.5 * lambda;
    for (int64_t f = 0; f <= r->count; f++)
        if (r->first + f != 0 && r->first + f != r->ny)
            advance_faces_above(r, f);
    for (int64_t j = 1; j <= r->count; j++) {
        double *u = r->ux + (j - 1) * r->face_stride;
        advance_faces(u + 1, r->p + j * r->stride, r->p + j * r->stride + 1, r->nx - 1, r->lambda);
        for (int k = 0; k < r->obstacles; k++)
            if (r->obstacle[k].j0 <= r->first + j - 1 && r->first + j - 1 < r->obstacle[k].j1)
                memset(u + r->obstacle[k].i0, 0, (size_t)(r->obstacle[k].i1 - r->obstacle[k].i0 + 1) * sizeof *u);
    }
    r->lambda = lambda;
}

static int reset(alchemist_call *call, void *simulation, const int64_t *seed)
{
    room *r = simulation;
    double *sums = r->shared + r->microphones, centre[2];
    int status = ALCHEMIST_OK;
    memset(r->p, 0, r->doubles * sizeof *r->p);
    memset(sums, 0, (size_t)(r->quiet.j1 - r->quiet.j0) * sizeof *sums);
    if (seed != NULL)
        r->now.random = (uint64_t)*seed; /* otherwise the generator continues from the last episode */
    for (int k = 0; k < r->tones; k++) {
        r->now.frequency[k] = r->band[0] + (r->band[1] - r->band[0]) * draw(r);
        r->now.phase[k] = 2.0 * pi * draw(r);
    }
    centre[0] = (0.1 + 0.8 * draw(r)) * (double)r->nx * r->h;
    centre[1] = (0.1 + 0.8 * draw(r)) * (double)r->ny * r->h;
    r->now.substeps_done = -r->settle_steps * r->substeps;
    if (r->noise == PULSE || r->noise == MODE)
        begin_with_pressure(r, centre);
    listen(r, sums);
    share(r, 1);
    for (int64_t s = 0; s < r->settle_steps && status == ALCHEMIST_OK; s++) {
        status = alchemist_check_cancelled(call);
        if (status == ALCHEMIST_OK)
            status = step(call, r, NULL);
    }
    return status;
}

/* --- snapshots ------------------------------------------------------------------------------------------------ */

static int snapshot_bytes(alchemist_call *call, void *simulation, int64_t *bytes)
{
    const room *r = simulation;
    (void)call;
    *bytes = (int64_t)(sizeof r->now + r->doubles * sizeof *r->p);
    return ALCHEMIST_OK;
}

static int snapshot(alchemist_call *call, void *simulation, void *part)
{
    const room *r = simulation;
    (void)call;
    memcpy(part, &r->now, sizeof r->now);
    memcpy((char *)part + sizeof r->now, r->p, r->doubles * sizeof *r->p);
    return ALCHEMIST_OK;
}

static int restore(alchemist_call *call, void *simulation, const void *part)
{
    room *r = simulation;
    (void)call;
    memcpy(&r->now, part, sizeof r->now);
    memcpy(r->p, (const char *)part + sizeof r->now, r->doubles * sizeof *r->p);
    return ALCHEMIST_OK;
}

static double work_per_step(void *simulation)
{
    const room *r = simulation;
    return (double)r->nx * (double)r->ny * (double)r->substeps / 1e6;
}

/* --- creation and destruction --------------------------------------------------------------------------------- */

/* Allocate all memory of this rank. Return whether there was enough. */
static int allocate(room *r)
{
    const size_t states = (size_t)(r->history * r->microphones), names = (size_t)r->loudspeakers + states;
    const size_t p = (size_t)(r->count + 2) * (size_t)r->stride, ux = (size_t)r->count * (size_t)r->face_stride;
    const size_t uy = (size_t)(r->count + 1) * (size_t)r->stride;
    r->doubles = p + ux + uy + states;
    r->p = calloc(r->doubles, sizeof *r->p);
    r->shared = calloc((size_t)(r->microphones + r->quiet.j1 - r->quiet.j0 + r->ny), sizeof *r->shared);
    r->counts = calloc((size_t)r->size, sizeof *r->counts), r->offsets = calloc((size_t)r->size, sizeof *r->offsets);
    r->labels = calloc(names, sizeof *r->labels), r->action_names = calloc(2 * names, sizeof *r->action_names);
    if (r->p == NULL || r->shared == NULL || r->counts == NULL || r->offsets == NULL || r->labels == NULL ||
        r->action_names == NULL)
        return 0;
    for (int k = 0; k < r->loudspeakers + 1; k++) {
        const source *s = k < r->loudspeakers ? &r->loudspeaker[k] : &r->noise_source;
        if ((k < r->loudspeakers || r->noise == TONAL) && (s->across == NULL || s->up == NULL))
            return 0;
    }
    r->ux = r->p + p, r->uy = r->ux + ux, r->heard = r->uy + uy;
    r->action_units = r->action_names + r->loudspeakers, r->state_names = r->action_units + r->loudspeakers;
    r->state_units = r->state_names + states;
    return 1;
}

static void describe_components(room *r)
{
    int label = 0;
    for (int k = 0; k < r->loudspeakers; k++, label++) {
        snprintf(r->labels[label], sizeof *r->labels, "loudspeaker %d", k + 1);
        r->action_names[k] = r->labels[label], r->action_units[k] = "of full drive";
    }
    for (int64_t k = 0; k < r->history * r->microphones; k++, label++) {
        const int microphone = (int)(k % r->microphones) + 1, ago = (int)(k / r->microphones);
        if (ago == 0)
            snprintf(r->labels[label], sizeof *r->labels, "microphone %d", microphone);
        else
            snprintf(r->labels[label], sizeof *r->labels, "microphone %d, %d before", microphone, ago);
        r->state_names[k] = r->labels[label], r->state_units[k] = "Pa";
    }
}

/* Set up the persistent requests for the messages of a substep. */
static void prepare_halo(room *r)
{
    const int below = r->rank > 0 ? r->rank - 1 : MPI_PROC_NULL;
    const int above = r->rank < r->size - 1 ? r->rank + 1 : MPI_PROC_NULL;
    const int n = (int)r->nx;
    MPI_Recv_init(r->p, n, MPI_DOUBLE, below, 0, r->comm, &r->halo[0]);
    MPI_Recv_init(r->p + (r->count + 1) * r->stride, n, MPI_DOUBLE, above, 1, r->comm, &r->halo[1]);
    MPI_Send_init(r->p + r->count * r->stride, n, MPI_DOUBLE, above, 0, r->comm, &r->halo[2]);
    MPI_Send_init(r->p + r->stride, n, MPI_DOUBLE, below, 1, r->comm, &r->halo[3]);
}

static void forget(room *r)
{
    for (int k = 0; k < MOST; k++)
        free(r->loudspeaker[k].across), free(r->loudspeaker[k].up);
    free(r->noise_source.across), free(r->noise_source.up);
    free(r->p), free(r->shared), free(r->counts), free(r->offsets), free(r->labels), free(r->action_names);
    free(r);
}

static void destroy(void *simulation)
{
    room *r = simulation;
    for (int k = 0; k < 4; k++)
        MPI_Request_free(&r->halo[k]);
    MPI_Comm_free(&r->comm);
    forget(r);
}

static int describe_room(alchemist_call *call, room *r)
{
    int status = read_grid(call, r);
    status = status == ALCHEMIST_OK ? read_walls(call, r) : status;
    status = status == ALCHEMIST_OK ? read_noise(call, r) : status;
    return status == ALCHEMIST_OK ? read_devices(call, r) : status;
}

static int create(alchemist_call *call, void **simulation)
{
    room *r = calloc(1, sizeof *r);
    int made = r != NULL, status;
    MPI_Allreduce(MPI_IN_PLACE, &made, 1, MPI_INT, MPI_MIN, call->comm); /* all ranks continue, or none */
    if (made) {
        status = describe_room(call, r); /* the same on all ranks, since it depends on the arguments only */
        if (status != ALCHEMIST_OK) {
            forget(r);
            return status;
        }
        r->rank = call->rank, r->size = call->size;
        r->first = r->ny * r->rank / r->size, r->count = r->ny * (r->rank + 1) / r->size - r->first;
        r->stride = (r->nx + 7) / 8 * 8, r->face_stride = (r->nx + 8) / 8 * 8;
        made = allocate(r);
        MPI_Allreduce(MPI_IN_PLACE, &made, 1, MPI_INT, MPI_MIN, call->comm);
    }
    if (!made) {
        if (r != NULL)
            forget(r);
        return alchemist_fail(call, ALCHEMIST_NO_MEMORY, "a rank has not enough memory for its part of the room");
    }
    for (int k = 0; k < r->size; k++) {
        r->offsets[k] = (int)(r->ny * k / r->size * r->nx);
        r->counts[k] = (int)(r->ny * (k + 1) / r->size * r->nx) - r->offsets[k];
    }
    describe_components(r);
    MPI_Comm_dup(call->comm, &r->comm); /* keeps its messages apart from those of other simulations */
    MPI_Comm_set_errhandler(r->comm, MPI_ERRORS_ARE_FATAL); /* a rank that has lost another cannot continue */
    prepare_halo(r);
    *simulation = r;
    return ALCHEMIST_OK;
}

static int spaces(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation)
{
    const room *r = simulation;
    (void)call;
    action->ndim = observation->ndim = 1;
    action->shape[0] = r->loudspeakers, observation->shape[0] = r->history * r->microphones;
    action->low = -1.0, action->high = 1.0;
    observation->low = -HUGE_VAL, observation->high = HUGE_VAL;
    action->names = r->action_names, action->units = r->action_units;
    observation->names = r->state_names, observation->units = r->state_units;
    return ALCHEMIST_OK;
}

/* --- description ---------------------------------------------------------------------------------------------- */

static const alchemist_parameter parameters[] = {
    {"nx", ALCHEMIST_INT, "400", "Number of cells across the room; cells are square.", 0, NULL},
    {"width", ALCHEMIST_FLOAT, "6.0", "Width of the room, in m.", 0, NULL},
    {"height", ALCHEMIST_FLOAT, "4.5", "Height of the room, in m: a multiple of width / nx.", 0, NULL},
    {"sound_speed", ALCHEMIST_FLOAT, "343.0", "Speed of sound, in m/s.", 0, NULL},
    {"density", ALCHEMIST_FLOAT, "1.2", "Density of the air, in kg/m^3.", 0, NULL},
    {"courant", ALCHEMIST_FLOAT, "0.95",
     "Time step divided by the largest stable one, width / nx / (sound_speed sqrt 2).", 0, NULL},
    {"substeps", ALCHEMIST_INT, "12", "Time steps in a step; the loudspeakers are constant during a step.", 0, NULL},
    {"absorption", ALCHEMIST_ARRAY, "[0.2, 0.2, 0.2, 0.2]",
     "Share of energy that the left, right, bottom and top wall absorb from a wave at a right angle; 0 is rigid.",
     ALCHEMIST_FLOAT64, NULL},
    {"obstacles", ALCHEMIST_ARRAY, "[[2.4, 2.0, 2.5, 4.5]]",
     "Rigid rectangles [x0, y0, x1, y1], in m from the lower left corner.", ALCHEMIST_FLOAT64, NULL},
    {"loudspeakers", ALCHEMIST_ARRAY, "[[3.4, 0.8], [5.4, 0.8], [3.4, 2.8], [5.4, 2.8]]", "Places [x, y], in m.",
     ALCHEMIST_FLOAT64, NULL},
    {"drive", ALCHEMIST_FLOAT, "0.015", "Flow of a loudspeaker at the action 1, in m^2/s: m^3/s for each m of depth.",
     0, NULL},
    {"radius", ALCHEMIST_FLOAT, "0.06", "Standard deviation of the Gaussian patch of a loudspeaker, in m.", 0, NULL},
    {"microphones", ALCHEMIST_ARRAY,
     "[[1.2, 3.0], [2.4, 1.2], [3.9, 1.3], [4.9, 1.3], [3.9, 2.3], [4.9, 2.3], [4.4, 1.8], [3.0, 1.8]]",
     "Places [x, y], in m.", ALCHEMIST_FLOAT64, NULL},
    {"history", ALCHEMIST_INT, "2", "Number of steps in the state, the latest first.", 0, NULL},
    {"quiet_zone", ALCHEMIST_ARRAY, "[3.9, 1.3, 4.9, 2.3]", "Rectangle [x0, y0, x1, y1] to make quiet, in m.",
     ALCHEMIST_FLOAT64, NULL},
    {"noise", ALCHEMIST_STRING, "'tones'",
     "Kind of noise: 'tones' of a source, an initial 'pulse' at a place that the seed draws, an initial 'mode' of the\n"
     "room, or 'silence'.",
     0, NULL},
    {"noise_at", ALCHEMIST_ARRAY, "[0.8, 3.6]", "Place [x, y] of the source, in m.", ALCHEMIST_FLOAT64, NULL},
    {"noise_drive", ALCHEMIST_FLOAT, "0.01", "Flow of the source, sqrt 2 times its root mean square, in m^2/s.", 0,
     NULL},
    {"tones", ALCHEMIST_INT, "2", "Number of tones; the seed draws their frequencies and phases.", 0, NULL},
    {"band", ALCHEMIST_ARRAY, "[100.0, 200.0]", "Lowest and highest frequency of the tones, in Hz.", ALCHEMIST_FLOAT64,
     NULL},
    {"settle", ALCHEMIST_FLOAT, "0.03", "Time for which the tones have sounded when an episode begins, in s.", 0, NULL},
    {"pressure", ALCHEMIST_FLOAT, "1.0", "Amplitude of the pulse or the mode, in Pa; colours go up to twice that.", 0,
     NULL},
    {"mode", ALCHEMIST_ARRAY, "[1.0, 0.0]", "Number of half waves of the mode, across and up.", ALCHEMIST_FLOAT64,
     NULL},
    ALCHEMIST_END,
};

static const alchemist_simulator simulator = {
    "Acoustics", "Sound in a room with loudspeakers that make a part of it quiet.",
    parameters, create, spaces, reset, step, get_state, get_score, NULL, destroy,
    info_names, get_info, describe_field, get_field, snapshot_bytes, snapshot, restore,
    "MLUP", work_per_step,
};

ALCHEMIST_LIBRARY("1.0", "Linear acoustics of a room: active noise control.", NULL, &simulator)
