/* Linear acoustics in two dimensions, for the pressure p in Pa and u = rho c v, the velocity in units of pressure:
 *
 *     dp/dt = -c div u + rho c^2 sum_k w_k(x) q_k(t),    du/dt = -c grad p,    p = xi u.n on the walls.
 *
 * The scheme is the staggered leapfrog of Yee (IEEE Trans. Antennas Propag. 14, 302, 1966) as Botteldooren has it for
 * rooms (J. Acoust. Soc. Am. 98, 3302, 1995): p in the middle of square cells at times n dt, the components of u in the
 * middle of their faces at (n - 1/2) dt, and one coefficient, lambda = c dt / h <= 1 / sqrt 2. A wall is half a cell
 * away from the pressure beside it, so that a face in a wall of impedance xi has half the mass of an inner one:
 *
 *     (1 + xi lambda) u.n(n + 1/2) = (1 - xi lambda) u.n(n - 1/2) + 2 lambda p(n).
 *
 * With sources at rest, E below is then constant up to rounding where all is rigid, and falls where it is not, by
 * lambda xi / 2 (u.n(n + 1/2) + u.n(n - 1/2))^2 a face of a wall and step: energy() has the proof's terms.
 *
 * Each rank has a run of rows, since what is next to each other in a row is so in memory: nothing is packed to be sent.
 * The faces between two ranks are advanced by both, to the same bits, so that pressures alone are exchanged, once a
 * substep and while the inner rows are advanced. Sums are made row by row, and the rows added in their order on every
 * rank: no result depends on the number of ranks, not in the last bit.
 */
#ifndef SCHEME_H
#define SCHEME_H

#include <math.h>

#include "room.h"

/* Faces between two rows of cells. */
static void advance_faces(double *restrict u, const double *restrict below, const double *restrict above, int64_t n,
                          double lambda)
{
    for (int64_t i = 0; i < n; i++)
        u[i] -= lambda * (above[i] - below[i]);
}

/* Faces in the wall below (outward = -1) or above (1). */
static void advance_wall(double *restrict u, const double *restrict p, int64_t n, const wall *w, double outward)
{
    for (int64_t i = 0; i < n; i++)
        u[i] = w->keep * u[i] + outward * w->push * p[i];
}

static void advance_pressure(double *restrict p, const double *restrict u, const double *restrict below,
                             const double *restrict above, int64_t n, double lambda)
{
    for (int64_t i = 0; i < n; i++)
        p[i] -= lambda * ((u[i + 1] - u[i]) + (above[i] - below[i]));
}

/* The faces above local row f; its rows are 1 .. count, and 0 and count + 1 are those of the neighbours. */
static void advance_faces_above(room *r, int64_t f)
{
    double *u = r->uy + f * r->stride, *p = r->p + f * r->stride;
    const int64_t face = r->first + f; /* between rows face - 1 and face of the room */
    if (face == 0)
        advance_wall(u, p + r->stride, r->nx, &r->walls[BOTTOM], -1.0);
    else if (face == r->ny)
        advance_wall(u, p, r->nx, &r->walls[TOP], 1.0);
    else
        advance_faces(u, p, p + r->stride, r->nx, r->lambda);
    for (int k = 0; k < r->obstacles; k++) {
        const cells *o = &r->obstacle[k];
        if (o->j0 <= face && face <= o->j1)
            memset(u + o->i0, 0, (size_t)(o->i1 - o->i0) * sizeof *u);
    }
}

/* The pressures of local row j, and the faces between its cells; those below and above it have been advanced. */
static void advance_row(room *r, int64_t j)
{
    double *p = r->p + j * r->stride, *u = r->ux + (j - 1) * r->face_stride, *above = r->uy + j * r->stride;
    const int64_t row = r->first + j - 1;
    advance_faces(u + 1, p, p + 1, r->nx - 1, r->lambda);
    advance_wall(u, p, 1, &r->walls[LEFT], -1.0);
    advance_wall(u + r->nx, p + r->nx - 1, 1, &r->walls[RIGHT], 1.0);
    for (int k = 0; k < r->obstacles; k++) {
        const cells *o = &r->obstacle[k];
        if (o->j0 <= row && row < o->j1)
            memset(u + o->i0, 0, (size_t)(o->i1 - o->i0 + 1) * sizeof *u);
    }
    advance_pressure(p, u, above - r->stride, above, r->nx, r->lambda);
}

/* Move `flow` m^2/s of air through a source for one substep. */
static void inject(room *r, const source *s, double flow)
{
    const double rise = r->rho * r->c * r->c * r->dt * flow; /* Pa m^2 */
    const int64_t from = s->at.j0 > r->first ? s->at.j0 : r->first;
    const int64_t to = s->at.j1 < r->first + r->count ? s->at.j1 : r->first + r->count;
    for (int64_t j = from; j < to; j++) {
        double *restrict p = r->p + (j - r->first + 1) * r->stride + s->at.i0;
        const double *restrict across = s->across;
        const double here = rise * s->up[j - s->at.j0];
        for (int64_t i = 0; i < s->at.i1 - s->at.i0; i++)
            p[i] += here * across[i];
    }
}

/* The flow of the noise at half a substep from now, in m^2/s. */
static double noise_flow(const room *r)
{
    const double t = ((double)r->now.substeps_done + 0.5) * r->dt;
    double flow = 0.0;
    for (int k = 0; k < r->tones; k++)
        flow += sin(2.0 * pi * r->now.frequency[k] * t + r->now.phase[k]);
    return r->noise_drive * flow / sqrt((double)r->tones);
}

static void advance(room *r, const double *action)
{
    const int64_t n = r->count;
    MPI_Startall(4, r->halo);
    advance_faces_above(r, 1);
    for (int64_t j = 2; j < n; j++) {
        advance_faces_above(r, j);
        advance_row(r, j);
    }
    MPI_Waitall(4, r->halo, MPI_STATUSES_IGNORE);
    advance_faces_above(r, 0);
    advance_row(r, 1);
    advance_faces_above(r, n);
    advance_row(r, n);
    for (int k = 0; action != NULL && k < r->loudspeakers; k++)
        inject(r, &r->loudspeaker[k], r->drive * action[k]);
    if (r->noise == TONAL)
        inject(r, &r->noise_source, noise_flow(r));
    r->now.substeps_done++;
}

/* The energy of a row, in Pa^2: p(n) p(n - 1) + u(n - 1/2)^2, where half of what moves in a face is of either cell,
 * and where p(n - 1) is what the scheme without sources comes from. So summed over the room, u in a wall has the weight
 * of half a cell, and
 *
 *     E(n + 1/2) - E(n - 1/2) = p(n) [p(n + 1) - p(n - 1)] + [u(n + 1/2) - u(n - 1/2)] [u(n + 1/2) + u(n - 1/2)]
 *
 * vanishes but for the walls, as the divergence is minus the transpose of the gradient. */
static double energy(const room *r, int64_t j)
{
    const double *p = r->p + j * r->stride, *u = r->ux + (j - 1) * r->face_stride;
    const double *above = r->uy + j * r->stride, *below = above - r->stride;
    double lanes[4] = {0.0, 0.0, 0.0, 0.0}; /* sums that do not wait for one another */
    for (int64_t i = 0; i < r->nx; i++) {
        const double before = p[i] + r->lambda * ((u[i + 1] - u[i]) + (above[i] - below[i]));
        lanes[i & 3] += p[i] * before + 0.5 * (u[i] * u[i] + u[i + 1] * u[i + 1] + above[i] * above[i] +
                                               below[i] * below[i]);
    }
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

#endif
