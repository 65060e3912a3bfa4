/* Products of rows of float32 or float16 with passages of float32. */
#ifndef LONGPLAY_PRODUCTS_H
#define LONGPLAY_PRODUCTS_H
#include "vectors.h"

/* As many floats as fit into a register. */
#ifdef __AVX512F__
#define LONG 16
#else
#define LONG LANES
#endif
typedef float lvec __attribute__((vector_size(4 * LONG), aligned(4), may_alias));

/* The numbers of a row from d on. */
INLINE lvec numbers(const void *row, int64_t d, int is_half)
{
    if (!is_half)
        return *(const lvec *)((const float *)row + d);
#if defined(__AVX512F__)
    return (lvec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const int16_t *)row + d)));
#elif defined(__AVX2__)
    return (lvec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const int16_t *)row + d)));
#else
    ivec bits = __builtin_convertvector(*(const hvec *)((const int16_t *)row + d), ivec);
    return (lvec)((bits << 13) & (int32_t)0x8fffe000) * 0x1p112f;
#endif
}

/* Eight numbers with the same sum. */
INLINE vec folded(lvec x)
{
#ifdef __AVX512F__
    return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7)
        + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    return x;
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
    lvec long_sum[8] = {{0}};
    vec sum[8];
    int64_t d = 0;
    for (; d + LONG <= dim; d += LONG) {
        lvec x = numbers(one, d, is_half), y = numbers(two, d, is_half);
        for (int p = 0; p < 4; p++) {
            lvec q = *(const lvec *)(query + p * dim + d);
            long_sum[p] += x * q;
            long_sum[4 + p] += y * q;
        }
    }
    for (int i = 0; i < 8; i++)
        sum[i] = folded(long_sum[i]);
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
    lvec sum[2][16 / LONG] = {{{0}}};
    int64_t d = 0;
    for (; d + 16 <= dim; d += 16)
        for (int i = 0; i < 16 / LONG; i++) {
            lvec q = *(const lvec *)(query + d + i * LONG);
            sum[0][i] += numbers(one, d + i * LONG, is_half) * q;
            sum[1][i] += numbers(two, d + i * LONG, is_half) * q;
        }
    for (int r = 0; r < 2; r++) {
        vec all = folded(sum[r][0]);
        for (int i = 1; i < 16 / LONG; i++)
            all += folded(sum[r][i]);
        sim[r] = sum_of(all);
    }
    for (; d < dim; d++) {
        sim[0] += number(one, d, is_half) * query[d];
        sim[1] += number(two, d, is_half) * query[d];
    }
}

/* A row of float16 as float32. */
INLINE void widen_row(const void *row, int64_t dim, float *to)
{
    int64_t d = 0;
    for (; d + LONG <= dim; d += LONG)
        *(lvec *)(to + d) = numbers(row, d, 1);
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
#endif
