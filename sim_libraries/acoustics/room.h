/* The data of a room. Each rank holds some consecutive rows of it. */
#ifndef ROOM_H
#define ROOM_H

#include "alchemist_ali.h"

enum { LEFT, RIGHT, BOTTOM, TOP, WALLS };
enum { MOST = 32, TONES = 16 }; /* limits: of loudspeakers, microphones and obstacles each; of tones */
typedef enum { SILENCE, TONAL, PULSE, MODE } noise_kind;

static const double pi = 3.14159265358979323846;
static const double reach = 4.0; /* a loudspeaker moves no air beyond this many radii */
static const double hearing = 20e-6; /* Pa, the reference of sound levels */

typedef struct {
    int64_t i0, i1, j0, j1; /* i0 <= i < i1, j0 <= j < j1 */
} cells;

/* A source moves air in a Gaussian patch: w(i, j) = across[i - at.i0] up[j - at.j0]. The integral of w is 1. */
typedef struct {
    cells at;
    double *across, *up;
} source;

/* A microphone interpolates the pressure of the four cells around a point: columns i and i + 1, rows j and j + 1. */
typedef struct {
    int64_t i, j;
    double right, above; /* weights of column i + 1 and of row j + 1 */
} microphone;

/* The coefficients of a wall of impedance xi: u.n = keep u.n + push p. */
typedef struct {
    double keep, push;
} wall;

/* The state that is not in an array. */
typedef struct {
    int64_t substeps_done; /* negative before the first step: the noise begins earlier */
    uint64_t random;
    double frequency[TONES], phase[TONES];
    double mean_square, energy;
} evolution;

typedef struct {
    MPI_Comm comm;
    MPI_Request halo[4];
    int rank, size;
    int64_t nx, ny, first, count;    /* this rank has rows first .. first + count - 1 */
    int64_t stride, face_stride;     /* distance between rows, of p and uy, and of ux */
    double h, dt, lambda, c, rho, drive, noise_drive, pressure, radius;
    int64_t substeps, settle_steps, history, modes[2];
    noise_kind noise;
    int tones, loudspeakers, microphones, obstacles;
    double band[2];
    wall walls[WALLS];
    cells quiet, obstacle[MOST];
    source noise_source, loudspeaker[MOST];
    microphone mic[MOST];
    evolution now;
    size_t doubles;                /* size of the block at p, which with `now` is everything a snapshot needs */
    double *p, *ux, *uy, *heard;   /* rows: count + 2 (the outermost are ghosts); count; count + 1; history */
    double *shared;                /* sums over ranks: microphones, rows of the quiet zone, energies of all rows */
    int *counts, *offsets;         /* sizes and places of the ranks' parts of a picture */
    char (*labels)[48];
    const char **action_names, **action_units, **state_names, **state_units;
} room;

static int is_solid(const room *r, int64_t i, int64_t j)
{
    for (int k = 0; k < r->obstacles; k++) {
        const cells *o = &r->obstacle[k];
        if (o->i0 <= i && i < o->i1 && o->j0 <= j && j < o->j1)
            return 1;
    }
    return 0;
}

#endif
