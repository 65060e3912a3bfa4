/* The bounds of songs.c with the roles exchanged: clips ask, and rows are the passages of texts, each
 * with a weight of at least 0. Called by index/text_kernels.py.
 */
#include "codes.h"

/* Bounds of MaxSim of the texts first..last: sum_r weight[r] * max_c sim[r, c]. */
int LOOP(scan_texts)(const int8_t *plane, const int64_t *offsets, const float *weight,
                     int64_t first, int64_t last, const int16_t *coef, const float *step,
                     const float *shift, int64_t clips, float *out)
{
    ivec *dot = malloc(clips * sizeof *dot);
    int16_t *wide = malloc(clips * FIRST * BLOCK * sizeof *wide);
    int64_t i = first;
    float total = 0;
    if (wide)
        repeat_pairs(coef, clips * FIRST / 2, wide);
    for (int64_t b = offsets[first] / BLOCK; dot && wide && i < last; b++) {
        dots_of(plane + b * BLOCK * FIRST, FIRST, wide, clips, (int32_t *)dot, BLOCK);
        vec most = floats(dot[0]) * step[0] + shift[0];
        for (int64_t c = 1; c < clips; c++)
            most = larger(most, floats(dot[c]) * step[c] + shift[c]);
        for (int64_t r = b * BLOCK; i < last && r < (b + 1) * BLOCK; r++) {
            if (r < offsets[i])
                continue;
            total += weight[r] * most[r - b * BLOCK];
            if (r + 1 == offsets[i + 1]) {
                out[i++] = total;
                total = 0;
            }
        }
    }
    int failed = !(dot && wide);
    free(dot);
    free(wide);
    return failed;
}

INLINE float maxsim_bound(const float *weight, vec *room, int64_t n, int64_t vecs)
{
    float total = 0;
    for (int64_t r = 0; r < n; r++) {
        struct interval x = interval_of(room, r, vecs);
        vec most = x.sim[0] + x.slack[0];
        for (int64_t i = 1; i < vecs; i++)
            most = larger(most, x.sim[i] + x.slack[i]);
        total += weight[r] * most_of(most);
    }
    return total;
}

/* What one plane adds to the similarities of the rows of a block that are from..to; what is left is of
 * the sizes that the plane tells, with their factors in reach and margin.
 */
INLINE void add_plane(const struct query *q, int plane, const ivec *dot, int64_t block,
                      int64_t from, int64_t to, vec *room, int64_t vecs)
{
    int64_t begin = block * BLOCK > from ? block * BLOCK : from;
    for (int64_t r = begin; r < to && r < (block + 1) * BLOCK; r++) {
        float *sim = (float *)interval_of(room, r - from, vecs).sim;
        for (int64_t c = 0; c < q->passages; c++)
            sim[c] += ((const int32_t *)(dot + c))[r - block * BLOCK] * q->step[plane][c];
    }
}

INLINE void set_slack(const struct query *q, int stage, vec size, int64_t block, int64_t from,
                      int64_t to, vec *room, int64_t vecs)
{
    int64_t begin = block * BLOCK > from ? block * BLOCK : from;
    for (int64_t r = begin; r < to && r < (block + 1) * BLOCK; r++) {
        float *slack = (float *)interval_of(room, r - from, vecs).slack;
        for (int64_t c = 0; c < q->passages; c++)
            slack[c] = q->reach[stage][c] * size[r - block * BLOCK] + q->margin[stage][c];
    }
}

INLINE void begin_text(const struct query *q, int64_t n, vec *room, int64_t vecs)
{
    for (int64_t r = 0; r < n; r++) {
        struct interval x = interval_of(room, r, vecs);
        for (int64_t i = 0; i < vecs; i++) {
            x.sim[i] = PADDING - (vec){0};
            x.slack[i] = (vec){0};
        }
        memcpy(x.sim, q->shift, q->passages * sizeof(float));
    }
}

/* Bound and estimate of the text with the rows from..to, as that of a song. `room` holds
 * vecs_of(clips) * (2 + 2 * longest) vectors, `dot` one for each clip.
 */
INLINE void refine_text(const struct query *q, struct planes planes, const float *weight,
                        int64_t from, int64_t to, float per_tau, float bar, int16_t *const *wide,
                        vec *room, ivec *dot, float *upper, float *middle)
{
    int64_t clips = q->passages, vecs = vecs_of(clips), n = to - from, last = (to - 1) / BLOCK;
    vec *every = room + 2 * vecs;
    begin_text(q, n, every, vecs);
    for (int64_t b = from / BLOCK; b <= last; b++) {
        const int8_t *one = planes.first + b * BLOCK * FIRST;
        const int8_t *two = planes.second + b * BLOCK * SECOND;
        dots_of(one, FIRST, wide[0], clips, (int32_t *)dot, BLOCK);
        add_plane(q, 0, dot, b, from, to, every, vecs);
        dots_of(two, SECOND, wide[1], clips, (int32_t *)dot, BLOCK);
        add_plane(q, 1, dot, b, from, to, every, vecs);
        set_slack(q, 0, sizes(two, SECOND), b, from, to, every, vecs);
    }
    *middle = *upper = maxsim_bound(weight + from, every, n, vecs);
    if (*upper < bar)
        return;
    for (int64_t b = from / BLOCK; b <= last; b++) {
        const int8_t *three = planes.third + b * BLOCK * q->third;
        third_dots(three, q, wide[2], (int32_t *)dot, BLOCK);
        add_plane(q, 2, dot, b, from, to, every, vecs);
        set_slack(q, 1, sizes(three, q->third), b, from, to, every, vecs);
    }
    *middle = *upper = maxsim_bound(weight + from, every, n, vecs);
    if (*upper < bar)
        return;
    *upper = *middle = 0;
    for (int64_t r = 0; r < n; r++) {
        struct interval x = interval_of(every, r, vecs);
        float value = pool(x.sim, vecs, per_tau);
        *middle += weight[from + r] * value;
        *upper += weight[from + r]
            * highest(x.sim, x.slack, room, room + vecs, vecs, per_tau, value);
    }
}

/* Tighter bounds and estimates of chosen texts. */
int LOOP(refine_texts)(const int8_t *first, const int8_t *second, const int8_t *third,
                          const int64_t *offsets, const float *weight, const int64_t *chosen,
                          int64_t count, const struct query *q, float tau, float bar,
                          int64_t longest, float *upper, float *middle)
{
    struct planes planes = {first, second, third};
    vec *room = malloc(vecs_of(q->passages) * (2 + 2 * longest) * sizeof *room);
    ivec *dot = malloc(q->passages * sizeof *dot);
    int16_t *wide[3], *all = wide_query(q, wide);
    for (int64_t i = 0; room && dot && all && i < count; i++)
        refine_text(
            q, planes, weight, offsets[chosen[i]], offsets[chosen[i] + 1], 1 / tau, bar, wide,
            room, dot, upper + i, middle + i);
    int failed = !(room && dot && all);
    free(all);
    free(room);
    free(dot);
    return failed;
}
