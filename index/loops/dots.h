/* Products of planes of codes with passages: whole numbers, so exact in every build. */
#ifndef LONGPLAY_DOTS_H
#define LONGPLAY_DOTS_H
#include "codes.h"

/* Numbers of a passage, each pair of them once for every row of a block. */
INLINE int64_t repeated(const struct codes *codes, int plane)
{
    return units_of(codes, plane) * PAIRS * 2 * BLOCK;
}

/* Where the repeated pair i of unit u begins. With AVX-512 two units are multiplied at once. */
INLINE int64_t place_of(int64_t units, int64_t u, int64_t i)
{
#ifdef __AVX512VNNI__
    if ((u | 1) < units)
        return ((u / 2 * PAIRS + i) * 2 + u % 2) * 2 * BLOCK;
#endif
    return (u * PAIRS + i) * 2 * BLOCK;
}

/* The numbers of both planes, each pair repeated; NULL where there is no memory. */
INLINE int16_t *repeat_query(const struct codes *codes, const struct query *q, int16_t *wide[2])
{
    int64_t of[2] = {repeated(codes, 0), repeated(codes, 1)};
    int16_t *all;
    size_t bytes = q->passages * (of[0] + of[1]) * sizeof *all;
    all = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    wide[0] = all;
    wide[1] = all + q->passages * of[0];
    for (int plane = 0; all && plane < 2; plane++) {
        int64_t units = units_of(codes, plane), pairs = units * PAIRS;
        for (int64_t pair = 0; pair < q->passages * pairs; pair++) {
            int64_t own = pair % pairs;
            int16_t *to = wide[plane] + pair / pairs * of[plane]
                + place_of(units, own / PAIRS, own % PAIRS);
            for (int r = 0; r < BLOCK; r++)
                memcpy(to + 2 * r, q->coef[plane] + 2 * pair, 2 * sizeof *to);
        }
    }
    return all;
}

/* tile(): dot[p * stride + b * BLOCK + r] = <passage p, row r of block b> of `blocks` blocks that follow each
 * other and `some` passages; units, blocks and some are constants.
 */
#ifdef __AVX512VNNI__
#include "tile512.h"
#else
#define TILE 1 /* most blocks of a tile */
#define MOST 4 /* most passages */

INLINE void tile(const uint8_t *block, int64_t units, int blocks, const int16_t *wide, int some,
                 int32_t *dot, int64_t stride)
{
    ivec sum[MOST] = {{0}};
    (void)blocks; /* one */
    for (int64_t u = 0; u < units; u++) {
        const int16_t *own = wide + place_of(units, u, 0);
#ifdef __AVX2__
        __m256i x = _mm256_loadu_si256((const __m256i *)(block + u * BLOCK * UNIT));
        __m256i half = _mm256_set1_epi16(15);
        __m256i pair[PAIRS] = {
            _mm256_and_si256(x, half), _mm256_and_si256(_mm256_srli_epi16(x, 4), half),
            _mm256_and_si256(_mm256_srli_epi16(x, 8), half), _mm256_srli_epi16(x, 12)};
        for (int p = 0; p < some; p++, own += units * PAIRS * 2 * BLOCK)
            for (int i = 0; i < PAIRS; i++) {
                __m256i q = _mm256_loadu_si256((const __m256i *)(own + i * 2 * BLOCK));
                sum[p] += (ivec)_mm256_madd_epi16(pair[i], q);
            }
#else
        uvec x = *(const uvec *)(block + u * BLOCK * UNIT);
        for (int p = 0; p < some; p++, own += units * PAIRS * 2 * BLOCK)
            for (int i = 0; i < PAIRS; i++)
                sum[p] += (ivec)(x >> 4 * i & 15) * own[i * 2 * BLOCK]
                    + (ivec)(x >> (16 + 4 * i) & 15) * own[i * 2 * BLOCK + 1];
#endif
    }
    for (int p = 0; p < some; p++)
        *(ivec *)(dot + p * stride) = sum[p];
}
#endif

/* A tile of all passages. */
INLINE void tiles(const uint8_t *block, int64_t units, int blocks, const int16_t *wide,
                  int64_t passages, int32_t *dot, int64_t stride)
{
    int64_t p = 0, each = units * PAIRS * 2 * BLOCK;
    for (; p + MOST <= passages; p += MOST)
        tile(block, units, blocks, wide + p * each, MOST, dot + p * stride, stride);
    for (; p < passages; p++)
        tile(block, units, blocks, wide + p * each, 1, dot + p * stride, stride);
}

/* The same of all blocks, by as many as a tile has and then one by one; `units` is a constant. */
INLINE void all_dots(const uint8_t *first, const uint8_t *last, int64_t units, const int16_t *wide,
                     int64_t passages, int32_t *dot, int64_t stride)
{
    int64_t each = units * BLOCK * UNIT, step = TILE * each;
    for (; first < last; first += step, dot += TILE * BLOCK) {
        if (first + step > last)
            step = each;
        for (int64_t at = 0; at < step; at += LINE)
            __builtin_prefetch(first + AHEAD + at);
        if (step > each)
            tiles(first, units, TILE, wide, passages, dot, stride);
        else
            tiles(first, units, 1, wide, passages, dot, stride);
    }
}

/* Products of all passages with the blocks from..to of a plane; those with the first begin at dot[0]. */
INLINE void dots_of(const struct codes *codes, int plane, int64_t from, int64_t to,
                    const int16_t *wide, int64_t passages, int32_t *dot, int64_t stride)
{
    int64_t units = units_of(codes, plane), each = bytes_of_block(codes, plane);
    const uint8_t *bytes = plane ? codes->second : codes->first;
    const uint8_t *first = bytes + from * each, *last = bytes + to * each;
    if (units == FIRST)
        all_dots(first, last, FIRST, wide, passages, dot, stride);
    else if (units == SECOND)
        all_dots(first, last, SECOND, wide, passages, dot, stride);
    else
        all_dots(first, last, units, wide, passages, dot, stride);
}
#endif
