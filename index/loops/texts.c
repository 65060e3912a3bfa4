/* The bounds of songs.c with the roles exchanged: clips ask, and rows are the passages of texts, each
 * with a weight of at least 0. Called by index/text_kernels.py.
 */
#include "bounds.h"

#define TOGETHER 128 /* rows whose products are made together, so that they stay in the cache */
#define TEXTS 64     /* most texts of these */

/* The bound of MaxSim by the first plane, of a text with n rows whose products begin at dot[0]. */
INLINE float first_bound(const struct query *q, const struct space *s, const float *base,
                         const int32_t *dot, const float *weight, int64_t n)
{
    float total = 0;
    for (int64_t r = 0; r < n; r += LANES) {
        vec most = PADDING - (vec){0};
        for (int64_t c = 0; c < q->passages; c++) {
            vec sim = floats(*(const ivec *)(dot + c * s->stride + r)) * q->step[0][c];
            most = larger(most, sim + (base[c * (TEXTS + 1)] + q->shift[0][c]));
        }
        for (int64_t i = 0; i < LANES && r + i < n; i++)
            total += weight[r + i] * most[i];
    }
    return total;
}

/* The intervals of all similarities of the text with the rows from..to: of each row with all clips. */
INLINE void set_intervals(const struct codes *codes, const struct query *q, struct space *s,
                          const float *base, const int32_t *dot, int64_t from, int64_t to,
                          int64_t vecs)
{
    int64_t start = from / BLOCK, blocks = (to - 1) / BLOCK - start + 1;
    int64_t units = units_of(codes, 0);
    dots_of(codes, 1, start, start + blocks, &s->factors, q->passages, s->more, blocks * BLOCK);
    for (int64_t r = from; r < to; r++) {
        struct interval x = interval_of(s->room, r - from, vecs);
        int64_t block = r / BLOCK, at = r - start * BLOCK;
        ivec first = sizes(codes->first + block * bytes_of_block(codes, 0), units);
        ivec second = sizes(
            codes->second + block * bytes_of_block(codes, 1), units_of(codes, 1));
        float *sim = (float *)x.sim, *slack = (float *)x.slack;
        x.sim[vecs - 1] = PADDING - (vec){0};
        x.slack[vecs - 1] = (vec){0};
        for (int64_t c = 0; c < q->passages; c++) {
            int32_t tail = q->coef[0][(c + 1) * units * 2 * PAIRS - 1];
            int32_t one = dot[c * s->stride + at] - first[r % BLOCK] * tail;
            int32_t two = s->more[c * blocks * BLOCK + at];
            sim[c] = one * q->step[0][c] + two * q->step[1][c] + (base[c * (TEXTS + 1)] + q->shift[1][c]);
            slack[c] = second[r % BLOCK] * q->reach[c] + q->margin[c];
        }
    }
}

INLINE float second_bound(const struct space *s, const float *weight, int64_t n, int64_t vecs)
{
    float total = 0;
    for (int64_t r = 0; r < n; r++) {
        struct interval x = interval_of(s->room, r, vecs);
        vec most = x.sim[0] + x.slack[0];
        for (int64_t i = 1; i < vecs; i++)
            most = larger(most, x.sim[i] + x.slack[i]);
        total += weight[r] * most_of(most);
    }
    return total;
}

/* The bound of the softmax averages, and an estimate of the score. */
INLINE float average_bound(const struct space *s, const float *weight, int64_t n, int64_t vecs,
                           float per_tau, float *middle)
{
    float total = 0;
    *middle = 0;
    for (int64_t r = 0; r < n; r++) {
        struct interval x = interval_of(s->room, r, vecs);
        float value = pool(x.sim, vecs, per_tau);
        *middle += weight[r] * value;
        total += weight[r]
            * highest(x.sim, x.slack, s->spare, s->spare + vecs, vecs, per_tau, value);
    }
    return total;
}

/* Bounds of the texts first..last with one song, and estimates: see bound in songs.c. */
int LOOP(bound_texts)(const struct codes *codes, const int64_t *offsets, const float *weight,
                      int64_t first, int64_t last, const struct query *q, float tau, float bar,
                      int64_t longest, float *upper, float *middle)
{
    struct space s;
    int64_t vecs = vecs_of(q->passages), most = longest > TOGETHER ? longest : TOGETHER;
    int found = make_space(codes, q, most, longest, TEXTS, longest, vecs, &s);
    for (int64_t j = first, end; found && j < last; j = end) {
        int64_t start = offsets[j] / BLOCK;
        end = owners_within(offsets, j, last < j + TEXTS ? last : j + TEXTS, most);
        dots_of(codes, 0, start, (offsets[end] + BLOCK - 1) / BLOCK, &s.factors, q->passages, s.dot,
                s.stride);
        bases(codes, q, j, end, s.base, TEXTS + 1);
        for (int64_t i = j; i < end; i++) {
            int64_t from = offsets[i], to = offsets[i + 1];
            middle[i] = upper[i] = first_bound(
                q, &s, s.base + i - j, s.dot + from - start * BLOCK, weight + from, to - from);
            if (upper[i] < bar)
                continue;
            set_intervals(codes, q, &s, s.base + i - j, s.dot + (from / BLOCK - start) * BLOCK,
                          from, to, vecs);
            middle[i] = upper[i] = second_bound(&s, weight + from, to - from, vecs);
            if (upper[i] >= bar)
                upper[i] = average_bound(
                    &s, weight + from, to - from, vecs, 1 / tau, middle + i);
        }
    }
    free_space(&s);
    return !found;
}
