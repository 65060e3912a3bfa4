/* Scores of songs and texts from their embeddings, in float32; called by index/kernels.py and
 * index/text_kernels.py through ctypes. Each call works on its own songs, so several threads may call
 * at once; all return 0, or 1 where there was no memory.
 */
#include "vectors.h"

/* float16 to float32 without the factor 2**112, which is put on the query. */
INLINE void widen_half(const int16_t *half, float *wide, int64_t n)
{
    int64_t d = 0;
    for (; d + LANES <= n; d += LANES) {
        ivec bits = __builtin_convertvector(*(const hvec *)(half + d), ivec);
        *(ivec *)(wide + d) = (bits << 13) & (int32_t)0x8fffe000;
    }
    for (; d < n; d++) {
        int32_t bits = (int32_t)((uint32_t)(int32_t)half[d] << 13) & (int32_t)0x8fffe000;
        memcpy(wide + d, &bits, 4);
    }
}

/* to[i] = the sum of x[i], for four vectors. */
INLINE void four_sums(const vec *x, float *to)
{
    vec ab = __builtin_shufflevector(x[0], x[1], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[0], x[1], 1, 9, 3, 11, 5, 13, 7, 15);
    vec cd = __builtin_shufflevector(x[2], x[3], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[2], x[3], 1, 9, 3, 11, 5, 13, 7, 15);
    vec all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13)
        + __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; i++)
        to[i] = all[i] + all[i + 4];
}

/* sim[p * stride + r] = <query[p], row r> for 4 passages of 2 rows. */
INLINE void dots_4x2(const float *one, const float *two, const float *query, int64_t dim,
                     float *sim, int64_t stride)
{
    vec sum[8] = {{0}};
    float of_one[4], of_two[4];
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        vec x = *(const vec *)(one + d), y = *(const vec *)(two + d);
        for (int p = 0; p < 4; p++) {
            vec q = *(const vec *)(query + p * dim + d);
            sum[p] += x * q;
            sum[4 + p] += y * q;
        }
    }
    four_sums(sum, of_one);
    four_sums(sum + 4, of_two);
    for (int p = 0; p < 4; p++) {
        for (int64_t e = d; e < dim; e++) {
            of_one[p] += one[e] * query[p * dim + e];
            of_two[p] += two[e] * query[p * dim + e];
        }
        sim[p * stride] = of_one[p];
        sim[p * stride + 1] = of_two[p];
    }
}

/* The same for 1 passage of 2 rows. */
INLINE void dots_1x2(const float *one, const float *two, const float *query, int64_t dim,
                     float *sim)
{
    vec sum[4] = {{0}};
    int64_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        vec q = *(const vec *)(query + d), r = *(const vec *)(query + d + LANES);
        sum[0] += *(const vec *)(one + d) * q;
        sum[1] += *(const vec *)(two + d) * q;
        sum[2] += *(const vec *)(one + d + LANES) * r;
        sum[3] += *(const vec *)(two + d + LANES) * r;
    }
    sim[0] = sum_of(sum[0] + sum[2]);
    sim[1] = sum_of(sum[1] + sum[3]);
    for (; d < dim; d++) {
        sim[0] += one[d] * query[d];
        sim[1] += two[d] * query[d];
    }
}

/* Ask for the rows that come after the next two: they lie in memory, and are read but once. Behind the
 * last row this asks for nothing, which does no harm.
 */
INLINE void fetch_rows(const void *rows, int64_t row, int64_t row_bytes)
{
    for (int64_t at = 0; at < 2 * row_bytes; at += 64)
        __builtin_prefetch((const char *)rows + (row + 4) * row_bytes + at);
}

/* Score of a query with one song of n clips; sim has room for `stride` similarities a passage. */
INLINE float score_pair(const float *query, const float *weight, int64_t passages,
                        const void *rows, int is_half, int64_t n, int64_t dim, float per_tau,
                        int64_t stride, float *sim, float *wide)
{
    for (int64_t c = 0; c < n; c += 2) {
        int64_t second = c + 1 < n ? c + 1 : c; /* the last row twice; padding covers it */
        fetch_rows(rows, c, dim * (is_half ? sizeof(int16_t) : sizeof(float)));
        const float *one = (const float *)rows + c * dim;
        const float *two = (const float *)rows + second * dim;
        if (is_half) {
            widen_half((const int16_t *)rows + c * dim, wide, dim);
            widen_half((const int16_t *)rows + second * dim, wide + dim, dim);
            one = wide;
            two = wide + dim;
        }
        int64_t p = 0;
        for (; p + 4 <= passages; p += 4)
            dots_4x2(one, two, query + p * dim, dim, sim + p * stride + c, stride);
        for (; p < passages; p++)
            dots_1x2(one, two, query + p * dim, dim, sim + p * stride + c);
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
                      const int64_t *owners, int64_t count, const float *query,
                      const float *weight, int64_t passages, float tau, int64_t longest,
                      float *out)
{
    int64_t stride = vecs_of(longest) * LANES;
    float *sim = malloc(stride * passages * sizeof *sim), *wide = malloc(2 * dim * sizeof *wide);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const void *own = is_half ? (const void *)((const int16_t *)rows + from * dim)
                                  : (const void *)((const float *)rows + from * dim);
        out[i] = score_pair(query, weight, passages, own, is_half, n, dim, 1 / tau, stride, sim,
                            wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}

/* The same of chosen texts with one song. */
int LOOP(score_texts)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                            const float *weight, const int64_t *chosen, int64_t count,
                            const float *clip, int64_t clips, float tau, int64_t longest,
                            float *out)
{
    int64_t stride = vecs_of(clips) * LANES;
    float *sim = malloc(stride * longest * sizeof *sim);
    float *wide = malloc(is_half ? longest * dim * sizeof *wide : 1);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;
        const float *own = (const float *)rows + from * dim;
        if (is_half) {
            widen_half((const int16_t *)rows + from * dim, wide, n * dim);
            own = wide;
        }
        out[i] = score_pair(own, weight + from, n, clip, 0, clips, dim, 1 / tau, stride, sim, NULL);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}
