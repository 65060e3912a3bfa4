/* Scores of eight passages at once: they stand side by side in a register. */
#ifndef LONGPLAY_BESIDE_H
#define LONGPLAY_BESIDE_H
#include "products.h"

#define EIGHT 8
#ifdef __AVX512F__
#include "beside512.h"
#else
#define FOURS 0 /* whether four passages can stand so, too */
#define ROWS 8  /* that are read together: as many sums as registers allow */

/* Floats that passages side by side need, a song of n rows, and its similarities. */
INLINE int64_t beside_size(int64_t dim) { return dim * EIGHT; }
INLINE int64_t wide_size(int64_t n, int64_t dim) { return n * dim; }
INLINE int64_t sims_size(int64_t n) { return n * EIGHT; }

/* Number d of each passage together; those beyond `passages` are 0. */
INLINE void set_beside(const float *query, int64_t passages, int64_t dim, int together, float *to)
{
    for (int64_t d = 0; d < dim; d++)
        for (int p = 0; p < together; p++)
            to[d * together + p] = p < passages ? query[p * dim + d] : 0;
}

/* sim[r] = the products of row r with eight passages, of `count` rows, a constant. On the way it asks for
 * `step` bytes from `ahead` on for each number: what is needed next.
 */
INLINE void dots_of_eight(const float *rows, int count, int64_t dim, const vec *beside, vec *sim,
                          const char *ahead, int64_t step)
{
    vec sum[ROWS] = {{0}};
    for (int64_t d = 0; d < dim; d++) {
        vec q = beside[d];
        __builtin_prefetch(ahead + d * step);
        for (int r = 0; r < count; r++)
            sum[r] += rows[r * dim + d] * q;
    }
    for (int r = 0; r < count; r++)
        sim[r] = sum[r];
}

/* Weighted softmax averages of eight passages; a row's similarities are one vector. */
INLINE float pool_eight(const vec *sim, int64_t n, float per_tau, const float *weight,
                        int64_t passages)
{
    vec top = sim[0], sum = {0}, value = {0};
    for (int64_t c = 1; c < n; c++)
        top = larger(top, sim[c]);
    for (int64_t c = 0; c < n; c++) {
        vec below = sim[c] - top, power = below * per_tau;
        exp_of(&power, &power);
        sum += power;
        value += power * below;
    }
    float total = 0;
    top += value / sum;
    for (int p = 0; p < EIGHT && p < passages; p++)
        total += weight[p] * top[p];
    return total;
}

/* What up to eight passages (`together`) give with a song of n rows. The rows of the song behind are asked
 * for meanwhile: where another is next, or none, this does no harm.
 */
INLINE float score_beside(const float *beside, const float *weight, int64_t passages, int together,
                          const void *song, int is_half, int64_t n, int64_t dim, float per_tau,
                          float *wide, float *sims)
{
    const char *next = (const char *)song + bytes_of(n * dim, is_half);
    const vec *q = (const vec *)beside;
    vec *sim = (vec *)sims;
    int64_t step = bytes_of(ROWS, is_half), each = bytes_of(dim, is_half), c = 0;
    (void)together; /* eight */
    if (is_half)
        widen_row(song, n * dim, wide);
    else
        memcpy(wide, song, n * dim * sizeof *wide);
    for (; c + ROWS <= n; c += ROWS)
        dots_of_eight(wide + c * dim, ROWS, dim, q, sim + c, next + c * each, step);
    if (c < n && n > ROWS) /* some again */
        dots_of_eight(wide + (n - ROWS) * dim, ROWS, dim, q, sim + n - ROWS,
                      next + (n - ROWS) * each, step);
    else
        for (; c < n; c++)
            dots_of_eight(wide + c * dim, 1, dim, q, sim + c, next, 0);
    return pool_eight(sim, n, per_tau, weight, passages);
}
#endif
#endif
