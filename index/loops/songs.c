/* Bounds of songs from codes of their clips; called by index/kernels.py through ctypes, which checks
 * types; NumPy does the same work where this was not compiled. Each call works on its own songs, so
 * several threads may call at once; all return 0, or 1 where there was no memory.
 */
#include "bounds.h"

#define TOGETHER 512 /* rows whose products are made together, so that they stay in the cache */
#define SONGS 64     /* most songs of these */

INLINE ivec larger_whole(ivec a, ivec b)
{
#ifdef __AVX2__
    return (ivec)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    ivec first = a > b;
    return (a & first) | (b & ~first);
#endif
}

/* The greatest of n products. */
INLINE int32_t best_of(const int32_t *dot, int64_t n)
{
    int32_t most = dot[0];
    if (n < LANES) {
        for (int64_t r = 1; r < n; r++)
            most = dot[r] > most ? dot[r] : most;
        return most;
    }
    ivec x = *(const ivec *)(dot + n - LANES);
    for (int64_t r = 0; r + LANES < n; r += LANES)
        x = larger_whole(x, *(const ivec *)(dot + r));
    x = larger_whole(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = larger_whole(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    return x[0] > x[1] ? x[0] : x[1];
}

/* The bound of MaxSim by the first plane, of a song with n rows whose products begin at dot[0].
 * Attention weighs similar clips more, so an average is at least the plain mean.
 */
INLINE float first_bound(const struct query *q, const struct space *s, const float *base,
                         const int32_t *dot, int64_t n)
{
    float total = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        float sim = base[p * (SONGS + 1)];
        if (q->weight[p] < 0)
            sim -= q->margin[p];
        else
            sim += best_of(dot + p * s->stride, n) * q->step[0][p] + q->shift[0][p];
        total += q->weight[p] * sim;
    }
    return total;
}

/* Ask for the rows from..to of the second plane: those that are needed lie anywhere. */
INLINE void fetch_second(const struct codes *codes, int64_t from, int64_t to)
{
    int64_t each = bytes_of_block(codes, 1), end = ((to - 1) / BLOCK + 1) * each;
    for (int64_t at = from / BLOCK * each; at < end; at += 64)
        __builtin_prefetch(codes->second + at);
}

/* What the rows of a song have of both planes beside products: the sizes that are left, in s->spare. */
INLINE void set_sizes(const struct codes *codes, struct space *s, int64_t start, int64_t vecs)
{
    ivec *first = (ivec *)s->spare;
    vec *second = s->spare + vecs;
    for (int64_t i = 0; i < vecs; i++) {
        const uint8_t *one = codes->first + (start + i) * bytes_of_block(codes, 0);
        const uint8_t *two = codes->second + (start + i) * bytes_of_block(codes, 1);
        first[i] = sizes(one, units_of(codes, 0));
        second[i] = floats(sizes(two, units_of(codes, 1)));
    }
}

/* The intervals of all similarities of the song with the rows from..to and passage p, by both planes; the
 * greatest that one of them may be. `dot` has its products with the first plane, by whole blocks, with
 * what that leaves: this is taken off again.
 */
INLINE float set_intervals(const struct codes *codes, const struct query *q, struct space *s,
                           int64_t p, float base, const int32_t *dot, int64_t from, int64_t to,
                           int64_t vecs)
{
    struct interval x = interval_of(s->room, p, vecs);
    const ivec *size = (const ivec *)s->spare;
    const vec *left = s->spare + vecs;
    int32_t tail = q->coef[0][(p + 1) * units_of(codes, 0) * 2 * PAIRS - 1];
    float one = q->step[0][p], two = q->step[1][p], shift = base + q->shift[1][p];
    float reach = q->reach[p], margin = q->margin[p];
    vec none = {0}, most = PADDING - none;
    dot += p * s->stride;
    for (int64_t i = 0; i < vecs; i++) {
        ivec first = *(const ivec *)(dot + i * BLOCK) - size[i] * tail;
        ivec second = *(const ivec *)(s->more + (p * vecs + i) * BLOCK);
        vec sim = floats(first) * one + floats(second) * two + shift;
        vec slack = left[i] * reach + margin;
        if (i == 0 || i == vecs - 1) { /* others may have rows there */
            ivec inside = lanes_of(from / BLOCK + i, from, to);
            sim = where(inside, sim, PADDING - none);
            slack = where(inside, slack, none);
        }
        most = larger(most, sim + slack);
        x.sim[i] = sim;
        x.slack[i] = slack;
    }
    return most_of(most);
}

/* The bound of MaxSim by both planes; sets all intervals. */
INLINE float second_bound(const struct codes *codes, const struct query *q, struct space *s,
                          const float *base, const int32_t *dot, int64_t from, int64_t to,
                          int64_t vecs)
{
    int64_t start = from / BLOCK;
    float total = 0;
    dots_of(codes, 1, start, start + vecs, s->wide[1], q->passages, s->more, vecs * BLOCK);
    set_sizes(codes, s, start, vecs);
    for (int64_t p = 0; p < q->passages; p++) {
        float own = base[p * (SONGS + 1)];
        float most = set_intervals(codes, q, s, p, own, dot, from, to, vecs);
        total += q->weight[p] * (q->weight[p] < 0 ? own - q->margin[p] : most);
    }
    return total;
}

/* The bound of the softmax averages, and an estimate of the score. */
INLINE float average_bound(const struct query *q, const struct space *s, const float *base,
                           int64_t vecs, float per_tau, float *middle)
{
    float total = 0;
    *middle = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        struct interval x = interval_of(s->room, p, vecs);
        float value = pool(x.sim, vecs, per_tau);
        *middle += q->weight[p] * value;
        total += q->weight[p]
            * (q->weight[p] < 0
                   ? base[p * (SONGS + 1)] - q->margin[p]
                   : highest(x.sim, x.slack, s->spare, s->spare + vecs, vecs, per_tau, value));
    }
    return total;
}

/* Similarities of one vector to the centres of the owners first..last. */
int LOOP(guess)(const struct codes *codes, int64_t first, int64_t last, const float *query,
                float *out)
{
    for (int64_t i = first; i < last; i += 2) {
        const int16_t *one = codes->centre + i * codes->dim;
        float both[2];
        dots_1x2(one, i + 1 < last ? one + codes->dim : one, 1, query, codes->dim, both);
        memcpy(out + i, both, (i + 1 < last ? 2 : 1) * sizeof *out);
    }
    return 0;
}

/* What both planes say of song i, whose products with the first begin at `dot`, by whole blocks. */
INLINE void tighten(const struct codes *codes, const struct query *q, struct space *s,
                    const float *base, const int32_t *dot, int64_t from, int64_t to,
                    float per_tau, float bar, float *upper, float *middle)
{
    int64_t vecs = (to - 1) / BLOCK - from / BLOCK + 1;
    *middle = *upper = second_bound(codes, q, s, base, dot, from, to, vecs);
    if (*upper >= bar)
        *upper = average_bound(q, s, base, vecs, per_tau, middle);
}

/* Bounds of the songs first..last with one query, as close as needed to be below the bar, and
 * estimates of the scores of those that are not.
 */
int LOOP(bound)(const struct codes *codes, const int64_t *offsets, int64_t first, int64_t last,
                const struct query *q, float tau, float bar, int64_t longest, float *upper,
                float *middle)
{
    struct space s;
    int64_t vecs = blocks_of(longest), most = longest > TOGETHER ? longest : TOGETHER;
    int found = make_space(codes, q, most, longest, SONGS, q->passages, vecs, &s);
    for (int64_t j = first, end; found && j < last; j = end) {
        int64_t start = offsets[j] / BLOCK;
        end = owners_within(offsets, j, last < j + SONGS ? last : j + SONGS, most);
        dots_of(codes, 0, start, (offsets[end] + BLOCK - 1) / BLOCK, s.wide[0], q->passages, s.dot,
                s.stride);
        bases(codes, q, j, end, s.base, SONGS + 1);
        for (int64_t i = j; i < end; i++) {
            int64_t from = offsets[i], to = offsets[i + 1];
            middle[i] = upper[i] = first_bound(
                q, &s, s.base + i - j, s.dot + from - start * BLOCK, to - from);
            if (upper[i] >= bar)
                fetch_second(codes, from, to);
        }
        for (int64_t i = j; i < end; i++)
            if (upper[i] >= bar)
                tighten(codes, q, &s, s.base + i - j,
                        s.dot + (offsets[i] / BLOCK - start) * BLOCK, offsets[i], offsets[i + 1],
                        1 / tau, bar, upper + i, middle + i);
    }
    free_space(&s);
    return !found;
}
