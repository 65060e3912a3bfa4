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

/* The numbers of a plane, each pair repeated. */
INLINE void repeat_query(const struct codes *codes, const struct query *q, int plane, int16_t *wide)
{
    int64_t units = units_of(codes, plane), pairs = units * PAIRS, of = repeated(codes, plane);
    for (int64_t pair = 0; pair < q->passages * pairs; pair++) {
        int64_t own = pair % pairs;
        int16_t *to = wide + pair / pairs * of + place_of(units, own / PAIRS, own % PAIRS);
        for (int r = 0; r < BLOCK; r++)
            memcpy(to + 2 * r, q->coef[plane] + 2 * pair, 2 * sizeof *to);
    }
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

/* A tile of all passages; codes are split into half bytes once for those that are multiplied together. */
INLINE void tiles(const uint8_t *block, int64_t units, int blocks, const int16_t *wide,
                  int64_t passages, int32_t *dot, int64_t stride)
{
    int64_t p = 0, each = units * PAIRS * 2 * BLOCK;
    for (; p + MOST <= passages; p += MOST)
        tile(block, units, blocks, wide + p * each, MOST, dot + p * stride, stride);
    for (; p + 3 <= passages; p += 3)
        tile(block, units, blocks, wide + p * each, 3, dot + p * stride, stride);
    if (p + 2 == passages)
        tile(block, units, blocks, wide + p * each, 2, dot + p * stride, stride);
    else if (p < passages)
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

#ifdef __AMX_INT8__
#include "amx_dots.h"
#endif

/* What planes are multiplied by, as the build takes it: `wide` of every passage, `split` of every eight. */
struct factors {
    void *memory;
    int16_t *wide[2];
#ifdef __AMX_INT8__
    int8_t *split[2];
    struct tiles before;
#endif
};

/* Begin to multiply, by one query, in this thread; 0 where there is no memory. */
INLINE int make_factors(const struct codes *codes, const struct query *q, struct factors *f)
{
    size_t bytes = 0, begin[4];
    for (int plane = 0; plane < 2; plane++) {
        begin[plane] = bytes;
        bytes += (q->passages * repeated(codes, plane) * sizeof(int16_t) + LINE - 1) / LINE * LINE;
    }
#ifdef __AMX_INT8__
    for (int plane = 0; plane < 2; plane++) {
        begin[2 + plane] = bytes;
        bytes += split_bytes(units_of(codes, plane), q->passages);
    }
    begin_dots(&f->before);
#endif
    f->memory = aligned_alloc(LINE, bytes);
    for (int plane = 0; f->memory && plane < 2; plane++) {
        f->wide[plane] = (int16_t *)((char *)f->memory + begin[plane]);
        repeat_query(codes, q, plane, f->wide[plane]);
#ifdef __AMX_INT8__
        f->split[plane] = (int8_t *)f->memory + begin[2 + plane];
        split_query(q->coef[plane], units_of(codes, plane), q->passages, f->split[plane]);
#endif
    }
    return f->memory != NULL;
}

INLINE void free_factors(struct factors *f)
{
#ifdef __AMX_INT8__
    end_dots(&f->before);
#endif
    free(f->memory);
}

/* all_dots() in the way that takes least. */
INLINE void quick_dots(const uint8_t *first, const uint8_t *last, int64_t units,
                       const struct factors *f, int plane, int64_t passages, int32_t *dot,
                       int64_t stride)
{
    int64_t p = 0;
#ifdef __AMX_INT8__
    for (; passages - p >= TOGETHER_LEAST; p += TOGETHER_MOST) {
        int64_t some = passages - p < TOGETHER_MOST ? passages - p : TOGETHER_MOST;
        amx_dots(first, last, units, f->split[plane] + p / TOGETHER_MOST * tiles_of(units) * TILE_BYTES, some,
                 dot + p * stride, stride);
    }
#endif
    if (p < passages)
        all_dots(first, last, units, f->wide[plane] + p * units * PAIRS * 2 * BLOCK, passages - p,
                 dot + p * stride, stride);
}

/* Products of all passages with the blocks from..to of a plane; those with the first begin at dot[0]. */
INLINE void dots_of(const struct codes *codes, int plane, int64_t from, int64_t to,
                    const struct factors *f, int64_t passages, int32_t *dot, int64_t stride)
{
    int64_t units = units_of(codes, plane), each = bytes_of_block(codes, plane);
    const uint8_t *bytes = plane ? codes->second : codes->first;
    const uint8_t *first = bytes + from * each, *last = bytes + to * each;
    if (units == FIRST)
        quick_dots(first, last, FIRST, f, plane, passages, dot, stride);
    else if (units == SECOND)
        quick_dots(first, last, SECOND, f, plane, passages, dot, stride);
    else
        quick_dots(first, last, units, f, plane, passages, dot, stride);
}
#endif
