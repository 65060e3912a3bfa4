/* Planes of codes, as index/codes.py lays them out, and products with them. */
#ifndef LONGPLAY_CODES_H
#define LONGPLAY_CODES_H
#include "vectors.h"

#define BLOCK 8 /* rows whose bytes stand together, two of each in turn */
#define FIRST 24
#define SECOND 24
#define THIRD 80
#define NARROW 24 /* THIRD where no more is left */

/* A coded query: see CodedQuery in index/kernels.py. */
struct query {
    const int16_t *coef[3];
    const float *step[3], *reach[2], *margin[2], *shift, *weight;
    int64_t passages, third; /* third: bytes of a row in the third plane */
};

/* Each pair of a query's numbers once for every row of a block: `pairs` pairs of int16. */
INLINE void repeat_pairs(const int16_t *coef, int64_t pairs, int16_t *wide)
{
    for (int64_t k = 0; k < pairs; k++)
        for (int r = 0; r < BLOCK; r++)
            memcpy(wide + (k * BLOCK + r) * 2, coef + 2 * k, 2 * sizeof *coef);
}

/* The numbers of all planes, each pair repeated; NULL where there is no memory. */
INLINE int16_t *wide_query(const struct query *q, int16_t *wide[3])
{
    int64_t width[3] = {FIRST, SECOND, q->third}, at = 0;
    int16_t *all = malloc(q->passages * (FIRST + SECOND + q->third) * BLOCK * sizeof *all);
    for (int i = 0; all && i < 3; i++) {
        wide[i] = all + at;
        repeat_pairs(q->coef[i], q->passages * width[i] / 2, wide[i]);
        at += q->passages * width[i] * BLOCK;
    }
    return all;
}

typedef int8_t bvec __attribute__((vector_size(2 * BLOCK), aligned(1), may_alias));
typedef int16_t wvec __attribute__((vector_size(4 * BLOCK), aligned(2), may_alias));

struct planes {
    const int8_t *first, *second, *third;
};

/* What similarities are, and how far off they may be: of one song with one passage. */
struct interval {
    vec *sim, *slack;
};

/* Where that of the passage `number` is kept, all of `vecs` vectors. */
INLINE struct interval interval_of(vec *room, int64_t number, int64_t vecs)
{
    return (struct interval){room + 2 * number * vecs, room + (2 * number + 1) * vecs};
}

/* Blocks that n rows can lie in, wherever they begin. */
INLINE int64_t blocks_of(int64_t n) { return (n + 2 * BLOCK - 2) / BLOCK; }

/* -1 in the lanes of a block that hold the rows from..to, else 0. */
INLINE ivec lanes_of(int64_t block, int64_t from, int64_t to)
{
    ivec row = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t begin = from - block * BLOCK, end = to - block * BLOCK;
    return (row >= (int32_t)(begin > 0 ? begin : 0)) & (row < (int32_t)(end < BLOCK ? end : BLOCK));
}

/* The last byte of each row of a block: the size of what is left. */
INLINE vec sizes(const int8_t *block, int width)
{
    ivec pairs = (ivec)__builtin_convertvector(*(const bvec *)(block + (width - 2) * BLOCK), wvec);
    return floats(pairs >> 16);
}

/* The same for `some` passages at once, a constant. */
INLINE void some_dots(const int8_t *block, int width, const int16_t *wide, int some, int32_t *dot,
                      int64_t stride)
{
#ifdef __AVX2__
    __m256i sum[4];
    for (int p = 0; p < some; p++)
        sum[p] = _mm256_setzero_si256();
#pragma GCC unroll 12
    for (int k = 0; k < width * BLOCK; k += 2 * BLOCK) {
        __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(block + k)));
        for (int p = 0; p < some; p++) {
            const int16_t *own = wide + p * width * BLOCK + k;
            sum[p] = _mm256_add_epi32(
                sum[p], _mm256_madd_epi16(x, _mm256_loadu_si256((const __m256i *)own)));
        }
    }
    for (int p = 0; p < some; p++)
        _mm256_storeu_si256((__m256i *)(dot + p * stride), sum[p]);
#else
    for (int p = 0; p < some; p++, wide += width * BLOCK) {
        int32_t sum[BLOCK] = {0};
        for (int k = 0; k < width * BLOCK; k += 2 * BLOCK)
            for (int r = 0; r < BLOCK; r++)
                sum[r] += block[k + 2 * r] * wide[k + 2 * r]
                    + block[k + 2 * r + 1] * wide[k + 2 * r + 1];
        memcpy(dot + p * stride, sum, sizeof sum);
    }
#endif
}

/* dot[p * stride + r] = <passage p, row r> for the eight rows of a block; `width` is a constant, and
 * `wide` as repeat_pairs gives it.
 */
INLINE void dots_of(const int8_t *block, int width, const int16_t *wide, int64_t passages,
                    int32_t *dot, int64_t stride)
{
    int64_t p = 0;
    for (; p + 4 <= passages; p += 4)
        some_dots(block, width, wide + p * width * BLOCK, 4, dot + p * stride, stride);
    for (; p < passages; p++)
        some_dots(block, width, wide + p * width * BLOCK, 1, dot + p * stride, stride);
}

/* The same of the third plane, which has one of two widths. */
INLINE void third_dots(const int8_t *block, const struct query *q, const int16_t *wide,
                       int32_t *dot, int64_t stride)
{
    if (q->third == NARROW)
        dots_of(block, NARROW, wide, q->passages, dot, stride);
    else
        dots_of(block, THIRD, wide, q->passages, dot, stride);
}
#endif
