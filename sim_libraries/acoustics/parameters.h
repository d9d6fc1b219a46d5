/* Check the parameters of create and turn them into a room. Everything depends only on the arguments and the number of
 * ranks, so all ranks get the same room, or fail for the same reason. */
#ifndef PARAMETERS_H
#define PARAMETERS_H

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "room.h"

#define REQUIRE(condition, ...)                                                                                      \
    do {                                                                                                             \
        if (!(condition))                                                                                            \
            return alchemist_fail(call, ALCHEMIST_VALUE_ERROR, __VA_ARGS__);                                         \
    } while (0)

/* Return a list of tuples of `width` numbers, and set `length`. Otherwise, or if there are fewer than `least` tuples,
 * report a failure and return NULL. */
static const double *tuples(alchemist_call *call, const char *name, int64_t width, int least, int *length)
{
    const alchemist_array *array = alchemist_get_array(call, name);
    const double *numbers = array != NULL ? array->elements : NULL;
    const int64_t size = array != NULL ? array->size : -1;
    *length = (int)(size / width);
    if (size == 0 ? least > 0 : array == NULL || array->ndim != 2 || array->shape[1] != width || *length > MOST) {
        alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "%s must be a list of %d to %d lists of %d numbers", name, least,
                       MOST, (int)width);
        return NULL;
    }
    for (int64_t k = 0; k < size; k++)
        if (!isfinite(numbers[k])) {
            alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "%s contains %g", name, numbers[k]);
            return NULL;
        }
    return size == 0 ? &hearing : numbers; /* not NULL; with no tuples the caller reads nothing */
}

/* Return a list of `size` numbers between two bounds. Otherwise report a failure and return NULL. */
static const double *numbers(alchemist_call *call, const char *name, int64_t size, double low, double high)
{
    const alchemist_array *array = alchemist_get_array(call, name);
    if (array == NULL || array->ndim != 1 || array->size != size) {
        alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "%s must be a list of %d numbers", name, (int)size);
        return NULL;
    }
    for (int64_t k = 0; k < size; k++)
        if (!(low <= ((const double *)array->elements)[k] && ((const double *)array->elements)[k] <= high)) {
            alchemist_fail(call, ALCHEMIST_VALUE_ERROR, "%s contains %g, which is outside %g..%g", name,
                           ((const double *)array->elements)[k], low, high);
            return NULL;
        }
    return array->elements;
}

/* Return the cells whose centres are inside a rectangle in m. */
static cells within(const room *r, const double *rectangle)
{
    cells found;
    found.i0 = (int64_t)ceil(rectangle[0] / r->h - 0.5), found.i1 = (int64_t)ceil(rectangle[2] / r->h - 0.5);
    found.j0 = (int64_t)ceil(rectangle[1] / r->h - 0.5), found.j1 = (int64_t)ceil(rectangle[3] / r->h - 0.5);
    return found;
}

static int is_empty(const cells *a) { return a->i0 >= a->i1 || a->j0 >= a->j1; }

static int overlap(const cells *a, const cells *b)
{
    return a->i0 < b->i1 && b->i0 < a->i1 && a->j0 < b->j1 && b->j0 < a->j1;
}

static int touches_solid(const room *r, const cells *a)
{
    for (int k = 0; k < r->obstacles; k++)
        if (overlap(a, &r->obstacle[k]))
            return 1;
    return 0;
}

static int is_in_room(const room *r, const double *point)
{
    return 0.0 < point[0] && point[0] < (double)r->nx * r->h && 0.0 < point[1] && point[1] < (double)r->ny * r->h;
}

static int read_grid(alchemist_call *call, room *r)
{
    const double width = alchemist_get_float(call, "width"), height = alchemist_get_float(call, "height");
    const double courant = alchemist_get_float(call, "courant"), settle = alchemist_get_float(call, "settle");
    double rows;
    r->nx = alchemist_get_int(call, "nx");
    REQUIRE(isfinite(width) && width > 0.0, "width must be positive, not %g m", width);
    REQUIRE(isfinite(height) && height > 0.0, "height must be positive, not %g m", height);
    REQUIRE(r->nx >= 4 && r->nx <= 100000, "nx must be within 4..100000, not %lld", (long long)r->nx);
    r->h = width / (double)r->nx;
    rows = height / r->h;
    REQUIRE(rows < 1e5 && fabs(rows - floor(rows + 0.5)) < 1e-6 * rows,
            "height must be a multiple of the cell size, width / nx = %g m, not %g m", r->h, height);
    r->ny = (int64_t)floor(rows + 0.5);
    REQUIRE(r->nx * r->ny < INT_MAX, "nx is %lld: the room has more than %d cells", (long long)r->nx, INT_MAX);
    REQUIRE(r->ny >= 2 * (int64_t)call->size, "the room has %lld rows of cells, but each of the %d ranks needs two",
            (long long)r->ny, (int)call->size);
    REQUIRE(courant > 0.0 && courant <= 1.0, "courant must be within 0..1, not %g: the scheme is unstable above 1",
            courant);
    r->c = alchemist_get_float(call, "sound_speed"), r->rho = alchemist_get_float(call, "density");
    REQUIRE(isfinite(r->c) && r->c > 0.0, "sound_speed must be positive, not %g m/s", r->c);
    REQUIRE(isfinite(r->rho) && r->rho > 0.0, "density must be positive, not %g kg/m^3", r->rho);
    r->lambda = courant / sqrt(2.0);
    r->dt = r->lambda * r->h / r->c;
    r->substeps = alchemist_get_int(call, "substeps"), r->history = alchemist_get_int(call, "history");
    REQUIRE(r->substeps >= 1 && r->substeps <= 1000000, "substeps must be within 1..1000000, not %lld",
            (long long)r->substeps);
    REQUIRE(r->history >= 1 && r->history <= 1000, "history must be within 1..1000, not %lld", (long long)r->history);
    REQUIRE(settle >= 0.0 && settle / r->dt < 1e9, "settle must be positive or zero, not %g s", settle);
    r->settle_steps = (int64_t)ceil(settle / (r->dt * (double)r->substeps));
    return ALCHEMIST_OK;
}

static int read_walls(alchemist_call *call, room *r)
{
    const double *absorption = numbers(call, "absorption", WALLS, 0.0, 1.0), *obstacle;
    if (absorption == NULL)
        return ALCHEMIST_VALUE_ERROR;
    for (int k = 0; k < WALLS; k++) {
        const double reflection = sqrt(1.0 - absorption[k]), xi = (1.0 + reflection) / (1.0 - reflection);
        r->walls[k].keep = absorption[k] > 0.0 ? (1.0 - xi * r->lambda) / (1.0 + xi * r->lambda) : 0.0;
        r->walls[k].push = absorption[k] > 0.0 ? 2.0 * r->lambda / (1.0 + xi * r->lambda) : 0.0;
    }
    obstacle = tuples(call, "obstacles", 4, 0, &r->obstacles);
    if (obstacle == NULL)
        return ALCHEMIST_VALUE_ERROR;
    for (int k = 0; k < r->obstacles; k++) {
        cells *o = &r->obstacle[k];
        *o = within(r, obstacle + 4 * k);
        REQUIRE(o->i0 >= 0 && o->j0 >= 0 && o->i1 <= r->nx && o->j1 <= r->ny && !is_empty(o),
                "obstacle %d, from (%g, %g) to (%g, %g) m, contains no cell or is not inside the room", k + 1,
                obstacle[4 * k], obstacle[4 * k + 1], obstacle[4 * k + 2], obstacle[4 * k + 3]);
    }
    return ALCHEMIST_OK;
}

/* Put a source at a point. Its weights are a Gaussian with standard deviation r->radius, scaled to the integral 1. */
static int place(alchemist_call *call, const room *r, source *s, const double *point, const char *what, int number)
{
    const double x = point[0], y = point[1], far = reach * r->radius;
    const double rectangle[] = {x - far, y - far, x + far, y + far};
    double columns = 0.0, rows = 0.0;
    s->at = within(r, rectangle);
    s->at.i0 = s->at.i0 > 0 ? s->at.i0 : 0, s->at.i1 = s->at.i1 < r->nx ? s->at.i1 : r->nx;
    s->at.j0 = s->at.j0 > 0 ? s->at.j0 : 0, s->at.j1 = s->at.j1 < r->ny ? s->at.j1 : r->ny;
    REQUIRE(is_in_room(r, point) && !is_empty(&s->at), "%s %d at (%g, %g) m is not in the room", what, number, x, y);
    REQUIRE(!touches_solid(r, &s->at), "%s %d at (%g, %g) m is less than %g m from an obstacle", what,
            number, x, y, far);
    s->across = malloc((size_t)(s->at.i1 - s->at.i0) * sizeof *s->across);
    s->up = malloc((size_t)(s->at.j1 - s->at.j0) * sizeof *s->up);
    if (s->across == NULL || s->up == NULL)
        return ALCHEMIST_OK; /* create() checks this, together with all ranks */
    for (int64_t i = s->at.i0; i < s->at.i1; i++)
        columns += s->across[i - s->at.i0] = exp(-0.5 * pow((((double)i + 0.5) * r->h - x) / r->radius, 2.0));
    for (int64_t j = s->at.j0; j < s->at.j1; j++)
        rows += s->up[j - s->at.j0] = exp(-0.5 * pow((((double)j + 0.5) * r->h - y) / r->radius, 2.0));
    for (int64_t i = s->at.i0; i < s->at.i1; i++)
        s->across[i - s->at.i0] /= columns * r->h;
    for (int64_t j = s->at.j0; j < s->at.j1; j++)
        s->up[j - s->at.j0] /= rows * r->h;
    return ALCHEMIST_OK;
}

/* Return the lower of the two cells whose centres enclose a position, and set the interpolation weight of the upper. */
static int64_t between(double position, int64_t n, double *share)
{
    const double cell = fmin(fmax(position - 0.5, 0.0), (double)(n - 1));
    const int64_t lower = (int64_t)cell < n - 1 ? (int64_t)cell : n - 2;
    *share = cell - (double)lower;
    return lower;
}

static int read_devices(alchemist_call *call, room *r)
{
    const double *zone = numbers(call, "quiet_zone", 4, 0.0, HUGE_VAL);
    const double *noisy = numbers(call, "noise_at", 2, 0.0, HUGE_VAL);
    const double *speakers = tuples(call, "loudspeakers", 2, 1, &r->loudspeakers);
    const double *points = tuples(call, "microphones", 2, 1, &r->microphones);
    int status = ALCHEMIST_OK;
    if (zone == NULL || noisy == NULL || speakers == NULL || points == NULL)
        return ALCHEMIST_VALUE_ERROR;
    r->radius = alchemist_get_float(call, "radius"), r->drive = alchemist_get_float(call, "drive");
    REQUIRE(r->radius >= 0.25 * r->h && isfinite(r->radius),
            "radius must be at least a quarter of a cell, %g m, not %g m", 0.25 * r->h, r->radius);
    REQUIRE(isfinite(r->drive) && r->drive >= 0.0, "drive must be positive or zero, not %g m^2/s", r->drive);
    r->quiet = within(r, zone);
    REQUIRE(r->quiet.i1 <= r->nx && r->quiet.j1 <= r->ny && !is_empty(&r->quiet),
            "quiet_zone, from (%g, %g) to (%g, %g) m, contains no cell or is not inside the room", zone[0], zone[1],
            zone[2], zone[3]);
    REQUIRE(!touches_solid(r, &r->quiet), "quiet_zone overlaps an obstacle");
    for (int k = 0; k < r->loudspeakers && status == ALCHEMIST_OK; k++)
        status = place(call, r, &r->loudspeaker[k], speakers + 2 * k, "loudspeaker", k + 1);
    if (status == ALCHEMIST_OK && r->noise == TONAL)
        status = place(call, r, &r->noise_source, noisy, "noise source", 1);
    for (int k = 0; k < r->microphones && status == ALCHEMIST_OK; k++) {
        microphone *m = &r->mic[k];
        const double *point = points + 2 * k;
        REQUIRE(is_in_room(r, point), "microphone %d at (%g, %g) m is not in the room", k + 1, point[0], point[1]);
        m->i = between(point[0] / r->h, r->nx, &m->right), m->j = between(point[1] / r->h, r->ny, &m->above);
        REQUIRE(!is_solid(r, m->i, m->j) && !is_solid(r, m->i + 1, m->j) && !is_solid(r, m->i, m->j + 1) &&
                    !is_solid(r, m->i + 1, m->j + 1),
                "microphone %d at (%g, %g) m is in an obstacle", k + 1, point[0], point[1]);
    }
    return status;
}

static int read_noise(alchemist_call *call, room *r)
{
    static const char *const kinds[] = {"silence", "tones", "pulse", "mode"};
    const char *noise = alchemist_get_string(call, "noise");
    const double *band = numbers(call, "band", 2, 0.0, HUGE_VAL), *modes = numbers(call, "mode", 2, 0.0, 1e6);
    const int64_t tones = alchemist_get_int(call, "tones");
    int kind = 0;
    if (noise == NULL || band == NULL || modes == NULL)
        return ALCHEMIST_VALUE_ERROR;
    while (kind <= MODE && strcmp(noise, kinds[kind]) != 0)
        kind++;
    REQUIRE(kind <= MODE, "noise must be 'silence', 'tones', 'pulse' or 'mode', not '%s'", noise);
    r->noise = (noise_kind)kind;
    REQUIRE(tones >= 1 && tones <= TONES, "tones must be within 1..%d, not %lld", TONES, (long long)tones);
    REQUIRE(r->noise != TONAL || (0.0 < band[0] && band[0] <= band[1] && band[1] <= 0.1 * r->c / r->h),
            "band must ascend within 0..%g Hz, so that a wave has at least 10 cells, not %g..%g Hz",
            0.1 * r->c / r->h, band[0], band[1]);
    r->tones = (int)tones;
    for (int k = 0; k < 2; k++) {
        r->band[k] = band[k];
        r->modes[k] = (int64_t)modes[k];
    }
    r->noise_drive = alchemist_get_float(call, "noise_drive"), r->pressure = alchemist_get_float(call, "pressure");
    REQUIRE(isfinite(r->noise_drive) && r->noise_drive >= 0.0, "noise_drive must be positive or zero, not %g m^2/s",
            r->noise_drive);
    REQUIRE(isfinite(r->pressure) && r->pressure > 0.0, "pressure must be positive, not %g Pa", r->pressure);
    if (r->noise != TONAL)
        r->settle_steps = 0;
    return ALCHEMIST_OK;
}

#endif
