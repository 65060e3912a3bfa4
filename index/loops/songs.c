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

/* What both planes say of the eight rows of vector i and of passage p, but for what is the same in all rows.
 * The products with the first, `dot`, are by whole blocks and have what it leaves: this is taken off again.
 */
INLINE vec said(const struct query *q, const struct space *s, int64_t p, int32_t tail,
                const int32_t *dot, int64_t i, int64_t vecs)
{
    const ivec *size = (const ivec *)s->spare;
    ivec first = *(const ivec *)(dot + p * s->stride + i * BLOCK) - size[i] * tail;
    ivec second = *(const ivec *)(s->more + (p * vecs + i) * BLOCK);
    return floats(first) * q->step[0][p] + floats(second) * q->step[1][p];
}

/* The coefficient of what the first plane leaves. */
INLINE int32_t tail_of(const struct codes *codes, const struct query *q, int64_t p)
{
    return q->coef[0][(p + 1) * units_of(codes, 0) * 2 * PAIRS - 1];
}

/* -1 in the lanes of vector i of a song that hold its rows from..to: its ends may hold others, too. */
INLINE ivec own_lanes(int64_t from, int64_t to, int64_t i)
{
    return lanes_of(from / BLOCK + i, from, to);
}

/* The bound of MaxSim by both planes; s->part has what each passage adds to it. */
INLINE float second_bound(const struct codes *codes, const struct query *q, struct space *s,
                          const float *base, const int32_t *dot, int64_t from, int64_t to,
                          int64_t vecs)
{
    const vec *left = s->spare + vecs, none = {0};
    float total = 0;
    dots_of(codes, 1, from / BLOCK, from / BLOCK + vecs, &s->factors, q->passages, s->more,
            vecs * BLOCK);
    set_sizes(codes, s, from / BLOCK, vecs);
    ivec begin = own_lanes(from, to, 0), end = own_lanes(from, to, vecs - 1);
    for (int64_t p = 0; p < q->passages; p++) {
        float own = base[p * (SONGS + 1)], reach = q->reach[p];
        if (q->weight[p] < 0) {
            total += s->part[p] = q->weight[p] * (own - q->margin[p]);
            continue;
        }
        int32_t tail = tail_of(codes, q, p);
        vec last = said(q, s, p, tail, dot, vecs - 1, vecs) + left[vecs - 1] * reach;
        vec most = said(q, s, p, tail, dot, 0, vecs) + left[0] * reach;
        most = larger(where(begin, most, PADDING - none), where(end, last, PADDING - none));
        for (int64_t i = 1; i < vecs - 1; i++)
            most = larger(most, said(q, s, p, tail, dot, i, vecs) + left[i] * reach);
        total += s->part[p] = q->weight[p]
            * (most_of(most) + (own + q->shift[1][p] + q->margin[p]));
    }
    return total;
}

/* The intervals of all similarities of the song with the rows from..to and passage p, after second_bound(). */
INLINE struct interval set_interval(const struct codes *codes, const struct query *q,
                                    const struct space *s, int64_t p, float base,
                                    const int32_t *dot, int64_t from, int64_t to, int64_t vecs)
{
    struct interval x = interval_of(s->room, 0, vecs);
    const vec *left = s->spare + vecs, none = {0};
    int32_t tail = tail_of(codes, q, p);
    for (int64_t i = 0; i < vecs; i++) {
        ivec inside = own_lanes(from, to, i);
        vec sim = said(q, s, p, tail, dot, i, vecs) + (base + q->shift[1][p]);
        x.sim[i] = where(inside, sim, PADDING - none);
        x.slack[i] = where(inside, left[i] * q->reach[p] + q->margin[p], none);
    }
    return x;
}

/* The bound of the softmax averages and an estimate of the score, of a song whose bound is `upper`: passage
 * by passage, as long as it reaches the bar.
 */
INLINE float average_bound(const struct codes *codes, const struct query *q, struct space *s,
                           const float *base, const int32_t *dot, int64_t from, int64_t to,
                           int64_t vecs, float per_tau, float bar, float upper, float *middle)
{
    vec *less = s->spare + 2 * vecs, *more = s->spare + 3 * vecs;
    *middle = 0;
    for (int64_t p = 0; p < q->passages && upper >= bar; p++) {
        float own = base[p * (SONGS + 1)];
        struct interval x = set_interval(codes, q, s, p, own, dot, from, to, vecs);
        float value = pool(x.sim, vecs, per_tau);
        *middle += q->weight[p] * value;
        if (q->weight[p] >= 0)
            upper += q->weight[p] * highest(x.sim, x.slack, less, more, vecs, per_tau, value)
                - s->part[p];
    }
    return upper;
}

/* Similarities of one vector to the centres of the owners first..last. */
int LOOP(guess)(const struct codes *codes, int64_t first, int64_t last, const float *query,
                float *out)
{
    for (int64_t i = first; i < last; i += 2) {
        const int16_t *one = codes->centre + i * codes->dim;
        float both[2];
        for (int64_t at = 0; at < 4 * codes->dim; at += LINE)
            __builtin_prefetch((const char *)one + AHEAD + at);
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
        *upper = average_bound(
            codes, q, s, base, dot, from, to, vecs, per_tau, bar, *upper, middle);
}

/* Bounds of the songs first..last with one query, as close as needed to be below the bar, and
 * estimates of the scores of those that are not. `guessed`, of a query with one passage, has its products
 * with the centres of all songs; NULL where they are not known.
 */
int LOOP(bound)(const struct codes *codes, const int64_t *offsets, int64_t first, int64_t last,
                const struct query *q, float tau, float bar, int64_t longest,
                const float *guessed, float *upper, float *middle)
{
    struct space s;
    int64_t vecs = blocks_of(longest), most = longest > TOGETHER ? longest : TOGETHER;
    int found = make_space(codes, q, most, longest, SONGS, 1, vecs, &s);
    for (int64_t j = first, end; found && j < last; j = end) {
        int64_t start = offsets[j] / BLOCK;
        const float *base = guessed ? guessed + j : s.base;
        end = owners_within(offsets, j, last < j + SONGS ? last : j + SONGS, most);
        dots_of(codes, 0, start, (offsets[end] + BLOCK - 1) / BLOCK, &s.factors, q->passages, s.dot,
                s.stride);
        if (!guessed)
            bases(codes, q, j, end, s.base, SONGS + 1);
        for (int64_t i = j; i < end; i++) {
            int64_t from = offsets[i], to = offsets[i + 1];
            middle[i] = upper[i] = first_bound(
                q, &s, base + i - j, s.dot + from - start * BLOCK, to - from);
            if (upper[i] >= bar)
                fetch_second(codes, from, to);
        }
        for (int64_t i = j; i < end; i++)
            if (upper[i] >= bar)
                tighten(codes, q, &s, base + i - j,
                        s.dot + (offsets[i] / BLOCK - start) * BLOCK, offsets[i], offsets[i + 1],
                        1 / tau, bar, upper + i, middle + i);
    }
    free_space(&s);
    return !found;
}
