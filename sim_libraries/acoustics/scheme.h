/* Linear acoustics in two dimensions, for the pressure p in Pa and the velocity in units of pressure, u = rho c v:
 *
 *     dp/dt = -c div u + rho c^2 sum_k w_k(x) q_k(t),    du/dt = -c grad p,    p = xi u.n on the walls.
 *
 * The scheme is the staggered leapfrog of Yee (IEEE Trans. Antennas Propag. 14, 302, 1966), applied to rooms as by
 * Botteldooren (J. Acoust. Soc. Am. 98, 3302, 1995). The pressure p is at the centres of square cells at times n dt.
 * The components of u are at the centres of the faces at times (n - 1/2) dt. The only coefficient is
 * lambda = c dt / h <= 1 / sqrt 2. A wall is half a cell away from the pressure next to it, so a face in a wall of
 * impedance xi has half the mass of an inner face:
 *
 *     (1 + xi lambda) u.n(n + 1/2) = (1 - xi lambda) u.n(n - 1/2) + 2 lambda p(n).
 *
 * While the sources are at rest, the energy E (see energy() and the proof there) is constant up to rounding if
 * everything is rigid. Otherwise each face of a wall lowers it in each step by
 * lambda xi / 2 (u.n(n + 1/2) + u.n(n - 1/2))^2.
 *
 * Each rank has consecutive rows. A row is contiguous in memory, so rows are sent without packing. Both neighbours
 * advance the faces between them and get the same bits. So the ranks exchange pressures only, once in each substep, and
 * advance their inner rows meanwhile. Each row is summed first, and every rank adds the sums of the rows in the same
 * order: results are the same on any number of ranks, to the last bit.
 */
#ifndef SCHEME_H
#define SCHEME_H

#include <math.h>

#include "room.h"

/* Advance the faces between two rows of cells. */
static void advance_faces(double *restrict u, const double *restrict below, const double *restrict above, int64_t n,
                          double lambda)
{
    for (int64_t i = 0; i < n; i++)
        u[i] -= lambda * (above[i] - below[i]);
}

/* Advance the faces in the wall below (outward = -1) or above (1). */
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

/* Advance the faces above local row f. This rank has the rows 1 .. count; rows 0 and count + 1 are the neighbours'. */
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

/* Advance the faces between the cells of local row j, then its pressures. The faces below and above come first. */
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

/* Return the flow of the noise source half a substep from now, in m^2/s. */
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

/* Return the energy of a row, in Pa^2: p(n) p(n - 1) + u(n - 1/2)^2. A face gives half of its energy to each of its two
 * cells. p(n - 1) is computed backwards from p(n) by the scheme without sources. Summed over the room, u in a wall has
 * the weight of half a cell, and
 *
 *     E(n + 1/2) - E(n - 1/2) = p(n) [p(n + 1) - p(n - 1)] + [u(n + 1/2) - u(n - 1/2)] [u(n + 1/2) + u(n - 1/2)]
 *
 * vanishes except at the walls, because the divergence is minus the transpose of the gradient. */
static double energy(const room *r, int64_t j)
{
    const double *p = r->p + j * r->stride, *u = r->ux + (j - 1) * r->face_stride;
    const double *above = r->uy + j * r->stride, *below = above - r->stride;
    double lanes[4] = {0.0, 0.0, 0.0, 0.0}; /* independent sums, which the processor can overlap */
    for (int64_t i = 0; i < r->nx; i++) {
        const double before = p[i] + r->lambda * ((u[i + 1] - u[i]) + (above[i] - below[i]));
        lanes[i & 3] += p[i] * before + 0.5 * (u[i] * u[i] + u[i + 1] * u[i + 1] + above[i] * above[i] +
                                               below[i] * below[i]);
    }
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

#endif
