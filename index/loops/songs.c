/* Bounds of songs from codes of their clips; called by index/kernels.py through ctypes, which checks
 * types; NumPy does the same work where this was not compiled. Each call works on its own songs, so
 * several threads may call at once; all return 0, or 1 where there was no memory.
 */
#include "codes.h"

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

INLINE float mean_of(const int32_t *dot, int64_t n)
{
    int64_t sum = 0;
    for (int64_t r = 0; r < n; r++)
        sum += dot[r];
    return (float)((double)sum / (double)n);
}

/* Songs from j on whose rows lie in `rows` rows together, at least one. */
INLINE int64_t songs_within(const int64_t *offsets, int64_t j, int64_t last, int64_t rows)
{
    int64_t end = j + 1;
    while (end < last && offsets[end + 1] - offsets[j] <= rows)
        end++;
    return end;
}

/* Bound of one query, whose passages are first..last, for a song with n rows from `at` on. */
INLINE float query_bound(const int32_t *dot, int64_t stride, int64_t at, int64_t n, int64_t first,
                         int64_t last, const float *step, const float *shift, const float *weight)
{
    float total = 0;
    for (int64_t p = first; p < last; p++) {
        const int32_t *own = dot + p * stride + at;
        float sim = weight[p] < 0 ? mean_of(own, n) : (float)best_of(own, n);
        total += (weight[p] < 0 ? -weight[p] : weight[p]) * (sim * step[p] + shift[p]);
    }
    return total;
}

#define TOGETHER 512 /* rows whose products are made together, so that they stay in the cache */
/* Bounds of the songs first..last for each query, whose passages begin at begins[q]. */
int LOOP(scan)(const int8_t *plane, const int64_t *offsets, int64_t first, int64_t last,
               const int16_t *coef, const float *step, const float *shift, const float *weight,
               const int64_t *begins, int64_t queries, int64_t songs, int64_t longest, float *out)
{
    int64_t passages = begins[queries], most = longest > TOGETHER ? longest : TOGETHER;
    int64_t stride = blocks_of(most) * BLOCK;
    int32_t *dot = malloc(passages * stride * sizeof *dot);
    int16_t *wide = malloc(passages * FIRST * BLOCK * sizeof *wide);
    if (wide)
        repeat_pairs(coef, passages * FIRST / 2, wide);
    for (int64_t j = first, end; dot && wide && j < last; j = end) {
        int64_t start = offsets[j] / BLOCK * BLOCK;
        end = songs_within(offsets, j, last, most);
        for (int64_t row = start; row < offsets[end]; row += BLOCK)
            dots_of(plane + row * FIRST, FIRST, wide, passages, dot + row - start, stride);
        for (int64_t i = j; i < end; i++)
            for (int64_t q = 0; q < queries; q++)
                out[q * songs + i] = query_bound(
                    dot, stride, offsets[i] - start, offsets[i + 1] - offsets[i], begins[q],
                    begins[q + 1], step, shift, weight);
    }
    int failed = !(dot && wide);
    free(dot);
    free(wide);
    return failed;
}

/* The mean of the lowest that n similarities can be, the first of them in lane `begin`. */
INLINE float lowest_mean(struct interval x, int64_t begin, int64_t n)
{
    float sum = 0;
    for (int64_t c = begin; c < begin + n; c++)
        sum += ((float *)x.sim)[c] - ((float *)x.slack)[c];
    return sum / n;
}

/* The bound of MaxSim. Attention weighs similar clips more: an average is at least the plain mean. */
INLINE float maxsim_bound(const struct query *q, vec *room, int64_t vecs, int64_t begin, int64_t n)
{
    float total = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        struct interval x = interval_of(room, p, vecs);
        if (q->weight[p] < 0) {
            total += q->weight[p] * lowest_mean(x, begin, n);
            continue;
        }
        vec most = x.sim[0] + x.slack[0];
        for (int64_t i = 1; i < vecs; i++)
            most = larger(most, x.sim[i] + x.slack[i]);
        total += q->weight[p] * most_of(most);
    }
    return total;
}

/* The bound of the softmax averages, and an estimate of the score. */
INLINE void average_bound(const struct query *q, vec *room, vec *spare, int64_t vecs,
                          int64_t begin, int64_t n, float per_tau, float *upper, float *middle)
{
    *upper = *middle = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        struct interval x = interval_of(room, p, vecs);
        float value = pool(x.sim, vecs, per_tau);
        *middle += q->weight[p] * value;
        *upper += q->weight[p]
            * (q->weight[p] < 0
                   ? lowest_mean(x, begin, n)
                   : highest(x.sim, x.slack, spare, spare + vecs, vecs, per_tau, value));
    }
}

/* A chosen song while its bound is made: its rows from..to, and similarities in `room`. */
struct refined {
    int64_t from, to;
    vec *room;
    float *upper, *middle;
};

INLINE void fetch(const int8_t *plane, int64_t width, const struct refined *song)
{
    int64_t end = song->to * width;
    for (int64_t at = song->from / BLOCK * BLOCK * width; at < end; at += 64)
        __builtin_prefetch(plane + at);
}

/* The bound of MaxSim by two planes. */
INLINE void begin_song(const struct query *q, const struct planes *planes, int16_t *const *wide,
                       ivec *dot, const struct refined *song)
{
    int64_t start = song->from / BLOCK, vecs = (song->to - 1) / BLOCK - start + 1;
    int64_t count = q->passages;
    vec none = {0};
    for (int64_t i = 0; i < vecs; i++) {
        const int8_t *one = planes->first + (start + i) * BLOCK * FIRST;
        const int8_t *two = planes->second + (start + i) * BLOCK * SECOND;
        ivec inside = lanes_of(start + i, song->from, song->to);
        vec size = sizes(two, SECOND);
        dots_of(one, FIRST, wide[0], count, (int32_t *)dot, BLOCK);
        dots_of(two, SECOND, wide[1], count, (int32_t *)(dot + count), BLOCK);
        for (int64_t p = 0; p < count; p++) {
            struct interval x = interval_of(song->room, p, vecs);
            vec sim = floats(dot[p]) * q->step[0][p] + floats(dot[count + p]) * q->step[1][p]
                + q->shift[p];
            x.sim[i] = where(inside, sim, PADDING - none);
            x.slack[i] = where(inside, size * q->reach[0][p] + q->margin[0][p], none);
        }
    }
    *song->upper = *song->middle = maxsim_bound(
        q, song->room, vecs, song->from - start * BLOCK, song->to - song->from);
}

/* The bound of MaxSim by three planes; where it reaches the bar, the one from softmax averages. */
INLINE void end_song(const struct query *q, const struct planes *planes, int16_t *const *wide,
                     ivec *dot, const struct refined *song, vec *spare, float per_tau, float bar)
{
    int64_t start = song->from / BLOCK, vecs = (song->to - 1) / BLOCK - start + 1;
    int64_t begin = song->from - start * BLOCK, n = song->to - song->from;
    vec none = {0};
    for (int64_t i = 0; i < vecs; i++) {
        const int8_t *three = planes->third + (start + i) * BLOCK * q->third;
        ivec inside = lanes_of(start + i, song->from, song->to);
        vec size = sizes(three, q->third);
        third_dots(three, q, wide[2], (int32_t *)dot, BLOCK);
        for (int64_t p = 0; p < q->passages; p++) {
            struct interval x = interval_of(song->room, p, vecs);
            vec sim = x.sim[i] + floats(dot[p]) * q->step[2][p];
            x.sim[i] = where(inside, sim, x.sim[i]);
            x.slack[i] = where(inside, size * q->reach[1][p] + q->margin[1][p], none);
        }
    }
    *song->upper = *song->middle = maxsim_bound(q, song->room, vecs, begin, n);
    if (*song->upper >= bar)
        average_bound(q, song->room, spare, vecs, begin, n, per_tau, song->upper, song->middle);
}

#define AHEAD 8 /* songs that are read together: chosen ones lie anywhere, so each is asked for before */

/* Tighter bounds and estimates of chosen songs. */
int LOOP(refine)(const int8_t *first, const int8_t *second, const int8_t *third,
                 const int64_t *offsets, const int64_t *chosen, int64_t count,
                 const struct query *q, float tau, float bar, int64_t longest, float *upper,
                 float *middle)
{
    struct planes planes = {first, second, third};
    struct refined songs[AHEAD], next;
    int64_t each = blocks_of(longest) * 2 * q->passages;
    vec *room = malloc((AHEAD * each + 2 * blocks_of(longest)) * sizeof *room);
    ivec *dot = malloc(2 * q->passages * sizeof *dot);
    int16_t *wide[3], *all = wide_query(q, wide);
    for (int64_t i = 0; room && dot && all && i < count; i += AHEAD) {
        int64_t some = count - i < AHEAD ? count - i : AHEAD;
        for (int64_t k = 0; k < some; k++) {
            int64_t own = chosen[i + k];
            songs[k] = (struct refined){offsets[own], offsets[own + 1], room + k * each,
                                        upper + i + k, middle + i + k};
            begin_song(q, &planes, wide, dot, songs + k);
            if (upper[i + k] >= bar)
                fetch(third, q->third, songs + k);
            if (i + k + AHEAD < count) {
                own = chosen[i + k + AHEAD];
                next = (struct refined){.from = offsets[own], .to = offsets[own + 1]};
                fetch(first, FIRST, &next);
                fetch(second, SECOND, &next);
            }
        }
        for (int64_t k = 0; k < some; k++)
            if (upper[i + k] >= bar)
                end_song(q, &planes, wide, dot, songs + k, room + AHEAD * each, 1 / tau, bar);
    }
    int failed = !(room && dot && all);
    free(all);
    free(room);
    free(dot);
    return failed;
}
