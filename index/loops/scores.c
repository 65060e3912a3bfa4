/* Scores of songs and texts from their embeddings, in float32; called by index/kernels.py and
 * index/text_kernels.py through ctypes. Each call works on its own songs, so several threads may call
 * at once; all return 0, or 1 where there was no memory. Rows are float32, or float16 where is_half.
 */
#include "vectors.h"
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define CAN_ADVISE 1
#else
#define CAN_ADVISE 0
#endif

#define FEW 512   /* songs that are asked for at once: more are read in order anyway */
#define APART 4   /* how far apart they then lie at least, in songs */
#define PAGE 4096 /* the least that systems have; a larger page only begins earlier */

/* Ask the system for the rows of scattered songs, all before the first is read: rows that are mapped
 * from a file may lie on disk, and would be waited for one after another.
 */
INLINE void ask_for(const void *rows, int64_t row_bytes, const int64_t *offsets,
                    const int64_t *owners, int64_t count)
{
#if CAN_ADVISE
    int64_t reach = count ? owners[count - 1] - owners[0] : 0;
    if (count > FEW || (reach >= 0 && reach < APART * count))
        return;
    for (int64_t i = 0; i < count; i++) {
        uintptr_t from = (uintptr_t)rows + (uintptr_t)(offsets[owners[i]] * row_bytes);
        uintptr_t to = (uintptr_t)rows + (uintptr_t)(offsets[owners[i] + 1] * row_bytes);
        uintptr_t page = from / PAGE * PAGE;
        posix_madvise((void *)page, to - page, POSIX_MADV_WILLNEED); /* refused: read as before */
    }
#endif
}

/* The eight numbers of a row from d on. */
INLINE vec eight(const void *row, int64_t d, int is_half)
{
    if (!is_half)
        return *(const vec *)((const float *)row + d);
#ifdef __AVX2__
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const int16_t *)row + d)));
#else
    ivec bits = __builtin_convertvector(*(const hvec *)((const int16_t *)row + d), ivec);
    return (vec)((bits << 13) & (int32_t)0x8fffe000) * 0x1p112f;
#endif
}

INLINE float number(const void *row, int64_t d, int is_half)
{
    if (!is_half)
        return ((const float *)row)[d];
    int32_t bits = (int32_t)((uint32_t)(int32_t)((const int16_t *)row)[d] << 13);
    float found;
    bits &= (int32_t)0x8fffe000;
    memcpy(&found, &bits, sizeof found);
    return found * 0x1p112f;
}

INLINE int64_t bytes_of(int64_t numbers, int is_half)
{
    return numbers * (is_half ? (int64_t)sizeof(int16_t) : (int64_t)sizeof(float));
}

/* Halves of the sums of four vectors: i and i + 4 make the sum of x[i]. */
INLINE vec four_sums(const vec *x)
{
    vec ab = __builtin_shufflevector(x[0], x[1], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[0], x[1], 1, 9, 3, 11, 5, 13, 7, 15);
    vec cd = __builtin_shufflevector(x[2], x[3], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[2], x[3], 1, 9, 3, 11, 5, 13, 7, 15);
    return __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13)
        + __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
}

/* sim[p * stride + r] = <query[p], row r> for 4 passages of 2 rows. */
INLINE void dots_4x2(const void *one, const void *two, int is_half, const float *query,
                     int64_t dim, float *sim, int64_t stride)
{
    vec sum[8] = {{0}};
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        vec x = eight(one, d, is_half), y = eight(two, d, is_half);
        for (int p = 0; p < 4; p++) {
            vec q = *(const vec *)(query + p * dim + d);
            sum[p] += x * q;
            sum[4 + p] += y * q;
        }
    }
    vec x = four_sums(sum), y = four_sums(sum + 4);
    vec both = __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11)
        + __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15); /* by passages */
    for (int p = 0; p < 4; p++) {
        for (int64_t e = d; e < dim; e++) {
            both[2 * p] += number(one, e, is_half) * query[p * dim + e];
            both[2 * p + 1] += number(two, e, is_half) * query[p * dim + e];
        }
        memcpy(sim + p * stride, (const float *)&both + 2 * p, 2 * sizeof *sim);
    }
}

/* The same for 1 passage of 2 rows. */
INLINE void dots_1x2(const void *one, const void *two, int is_half, const float *query,
                     int64_t dim, float *sim)
{
    vec sum[4] = {{0}};
    int64_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        vec q = *(const vec *)(query + d), r = *(const vec *)(query + d + LANES);
        sum[0] += eight(one, d, is_half) * q;
        sum[1] += eight(two, d, is_half) * q;
        sum[2] += eight(one, d + LANES, is_half) * r;
        sum[3] += eight(two, d + LANES, is_half) * r;
    }
    sim[0] = sum_of(sum[0] + sum[2]);
    sim[1] = sum_of(sum[1] + sum[3]);
    for (; d < dim; d++) {
        sim[0] += number(one, d, is_half) * query[d];
        sim[1] += number(two, d, is_half) * query[d];
    }
}

/* Ask for the rows that come after the next two: they lie in memory, and are read but once. Behind the
 * last row this asks for nothing, which does no harm.
 */
INLINE void fetch_rows(const char *row, int64_t row_bytes)
{
    for (int64_t at = 4 * row_bytes; at < 6 * row_bytes; at += 64)
        __builtin_prefetch(row + at);
}

/* A row of float16 as float32. */
INLINE void widen_row(const void *row, int64_t dim, float *to)
{
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        *(vec *)(to + d) = eight(row, d, 1);
    for (; d < dim; d++)
        to[d] = number(row, d, 1);
}

/* Similarities of all passages with two rows, from column c on. */
INLINE void dots_of_two(const void *one, const void *two, int is_half, const float *query,
                        int64_t passages, int64_t dim, float *sim, int64_t stride)
{
    int64_t p = 0;
    for (; p + 4 <= passages; p += 4)
        dots_4x2(one, two, is_half, query + p * dim, dim, sim + p * stride, stride);
    for (; p < passages; p++)
        dots_1x2(one, two, is_half, query + p * dim, dim, sim + p * stride);
}

/* Score of a query with one song of n clips; sim has room for `stride` similarities a passage, and
 * wide for two rows: those of float16 are widened once where more passages read them.
 */
INLINE float score_pair(const float *query, const float *weight, int64_t passages,
                        const void *rows, int is_half, int64_t n, int64_t dim, float per_tau,
                        int64_t stride, float *sim, float *wide)
{
    int64_t row_bytes = bytes_of(dim, is_half);
    for (int64_t c = 0; c < n; c += 2) {
        const char *one = (const char *)rows + c * row_bytes;
        const char *two = c + 1 < n ? one + row_bytes : one; /* again; padding covers it */
        fetch_rows(one, row_bytes);
        if (is_half && passages > 4) {
            widen_row(one, dim, wide);
            widen_row(two, dim, wide + dim);
            dots_of_two(wide, wide + dim, 0, query, passages, dim, sim + c, stride);
        } else {
            dots_of_two(one, two, is_half, query, passages, dim, sim + c, stride);
        }
    }
    float total = 0;
    for (int64_t p = 0; p < passages; p++) {
        float *own = sim + p * stride;
        for (int64_t c = n; c < vecs_of(n) * LANES; c++)
            own[c] = PADDING;
        total += weight[p] * pool((const vec *)own, vecs_of(n), per_tau);
    }
    return total;
}

/* Scores of some songs with one query. */
int LOOP(score)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                const int64_t *owners, int64_t count, const float *query, const float *weight,
                int64_t passages, float tau, int64_t longest, float *out)
{
    int64_t stride = vecs_of(longest) * LANES;
    float *sim = malloc(stride * passages * sizeof *sim);
    float *wide = malloc(2 * dim * sizeof *wide);
    ask_for(rows, bytes_of(dim, is_half), offsets, owners, count);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const char *own = (const char *)rows + bytes_of(from * dim, is_half);
        out[i] = is_half
            ? score_pair(query, weight, passages, own, 1, n, dim, 1 / tau, stride, sim, wide)
            : score_pair(query, weight, passages, own, 0, n, dim, 1 / tau, stride, sim, wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}

/* The same of chosen texts with one song. */
int LOOP(score_texts)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                      const float *weight, const int64_t *chosen, int64_t count,
                      const float *clip, int64_t clips, float tau, int64_t longest, float *out)
{
    int64_t stride = vecs_of(clips) * LANES;
    float *sim = malloc(stride * longest * sizeof *sim);
    float *wide = malloc(is_half ? longest * dim * sizeof *wide : 1);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;
        const float *own = (const float *)rows + from * dim;
        if (is_half) {
            widen_row((const int16_t *)rows + from * dim, n * dim, wide);
            own = wide;
        }
        out[i] = score_pair(own, weight + from, n, clip, 0, clips, dim, 1 / tau, stride, sim, wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}
