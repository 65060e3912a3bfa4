/* Planes of codes, as index/codes.py lays them out, and products with them. */
#ifndef LONGPLAY_CODES_H
#define LONGPLAY_CODES_H
#include "products.h"

#define BLOCK 8 /* rows whose bytes stand together, four of each in turn: a unit */
#define UNIT 4
#define PAIRS 4 /* in a unit, of half bytes of a row */
/* Units of a row in each plane, of rows up to 80 wide and of others. */
#define FIRST 11
#define SECOND 9
#define WIDE_FIRST 17
#define WIDE_SECOND 15

/* Codes of the rows of a table: see Codes in index/codes.py. */
struct codes {
    const uint8_t *first, *second;
    const int16_t *centre; /* float16 */
    int64_t dim, wide;
};

/* A coded query: see CodedQuery in index/kernels.py. */
struct query {
    const float *emb, *weight;
    const int16_t *coef[2];
    const float *step[2], *shift[2], *reach, *margin;
    int64_t passages;
};

typedef uint32_t uvec __attribute__((vector_size(4 * BLOCK), aligned(1), may_alias));

INLINE int64_t units_of(const struct codes *codes, int plane)
{
    return codes->wide ? (plane ? WIDE_SECOND : WIDE_FIRST) : (plane ? SECOND : FIRST);
}

INLINE int64_t bytes_of_block(const struct codes *codes, int plane)
{
    return units_of(codes, plane) * BLOCK * UNIT;
}

/* Numbers of a passage, each pair of them once for every row of a block. */
INLINE int64_t repeated(const struct codes *codes, int plane)
{
    return units_of(codes, plane) * PAIRS * 2 * BLOCK;
}

/* The numbers of both planes, each pair repeated; NULL where there is no memory. */
INLINE int16_t *repeat_query(const struct codes *codes, const struct query *q, int16_t *wide[2])
{
    int64_t of[2] = {repeated(codes, 0), repeated(codes, 1)};
    int16_t *all = malloc(q->passages * (of[0] + of[1]) * sizeof *all);
    wide[0] = all;
    wide[1] = all + q->passages * of[0];
    for (int i = 0; all && i < 2; i++)
        for (int64_t pair = 0; pair < q->passages * of[i] / (2 * BLOCK); pair++)
            for (int r = 0; r < BLOCK; r++)
                memcpy(wide[i] + (pair * BLOCK + r) * 2, q->coef[i] + 2 * pair, 2 * sizeof **wide);
    return all;
}

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

/* Owners from j on whose rows lie in `rows` rows together, at least one. */
INLINE int64_t owners_within(const int64_t *offsets, int64_t j, int64_t last, int64_t rows)
{
    int64_t end = j + 1;
    while (end < last && offsets[end + 1] - offsets[j] <= rows)
        end++;
    return end;
}

/* -1 in the lanes of a block that hold the rows from..to, else 0. */
INLINE ivec lanes_of(int64_t block, int64_t from, int64_t to)
{
    ivec row = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t begin = from - block * BLOCK, end = to - block * BLOCK;
    return (row >= (int32_t)(begin > 0 ? begin : 0)) & (row < (int32_t)(end < BLOCK ? end : BLOCK));
}

/* The last two half bytes of each row of a block: the size of what is left. */
INLINE ivec sizes(const uint8_t *block, int64_t units)
{
    uvec x = *(const uvec *)(block + (units - 1) * BLOCK * UNIT);
    return (ivec)(((x >> 12 & 15) << 4) | x >> 28);
}

/* dot[p * stride + r] = <passage p, row r> of `some` passages, a constant, with eight rows. */
INLINE void some_dots(const uint8_t *block, int64_t units, const int16_t *wide, int some,
                      int32_t *dot, int64_t stride)
{
    ivec sum[4] = {{0}};
    for (int64_t u = 0; u < units; u++) {
        const int16_t *own = wide + u * PAIRS * 2 * BLOCK;
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

/* The same of all passages; `units` is a constant. */
INLINE void all_dots(const uint8_t *block, int64_t units, const int16_t *wide, int64_t passages,
                     int32_t *dot, int64_t stride)
{
    int64_t p = 0, each = units * PAIRS * 2 * BLOCK;
    for (; p + 4 <= passages; p += 4)
        some_dots(block, units, wide + p * each, 4, dot + p * stride, stride);
    for (; p < passages; p++)
        some_dots(block, units, wide + p * each, 1, dot + p * stride, stride);
}

/* The same with the blocks from..to of a plane; products with the first begin at dot[0]. */
INLINE void dots_of(const struct codes *codes, int plane, int64_t from, int64_t to,
                    const int16_t *wide, int64_t passages, int32_t *dot, int64_t stride)
{
    const uint8_t *bytes = plane ? codes->second : codes->first;
    int64_t units = units_of(codes, plane);
    for (int64_t b = from; b < to; b++, dot += BLOCK) {
        const uint8_t *block = bytes + b * bytes_of_block(codes, plane);
        if (units == FIRST)
            all_dots(block, FIRST, wide, passages, dot, stride);
        else if (units == SECOND)
            all_dots(block, SECOND, wide, passages, dot, stride);
        else
            all_dots(block, units, wide, passages, dot, stride);
    }
}

/* base[p * stride + i] = <passage p, centre of the owner first + i>, of all up to `last`. */
INLINE void bases(const struct codes *codes, const struct query *q, int64_t first, int64_t last,
                  float *base, int64_t stride)
{
    for (int64_t i = first; i < last; i += 2) {
        const int16_t *one = codes->centre + i * codes->dim;
        const int16_t *two = i + 1 < last ? one + codes->dim : one; /* again; nobody reads it */
        dots_of_two(one, two, 1, q->emb, q->passages, codes->dim, base + i - first, stride);
    }
}

/* What a call needs for one chunk of rows, and for the intervals of one song or text. */
struct space {
    int16_t *wide[2], *numbers;
    int32_t *dot, *more;
    float *base; /* of one passage after another, each with room for one owner more */
    vec *room, *spare;
    int64_t stride; /* of dot: eight products are read from any row on */
};

/* For chunks of up to `rows` rows and `owners` owners, of up to `longest` rows each, and `count` pairs
 * of `vecs` vectors in room. 0 where there is no memory.
 */
INLINE int make_space(const struct codes *codes, const struct query *q, int64_t rows,
                      int64_t longest, int64_t owners, int64_t count, int64_t vecs,
                      struct space *s)
{
    s->stride = (blocks_of(rows) + 1) * BLOCK;
    s->numbers = repeat_query(codes, q, s->wide);
    s->dot = calloc(q->passages * s->stride, sizeof *s->dot);
    s->more = malloc(q->passages * blocks_of(longest) * BLOCK * sizeof *s->more);
    s->base = malloc(q->passages * (owners + 1) * sizeof *s->base);
    s->room = malloc((2 * count + 2) * vecs * sizeof *s->room);
    s->spare = s->room + 2 * count * vecs;
    return s->numbers && s->dot && s->more && s->base && s->room;
}

INLINE void free_space(struct space *s)
{
    free(s->numbers);
    free(s->dot);
    free(s->more);
    free(s->base);
    free(s->room);
}
#endif
