/* What bounds of songs and of texts are made of: intervals, centres, memory. */
#ifndef LONGPLAY_BOUNDS_H
#define LONGPLAY_BOUNDS_H
#include "dots.h"
#include "products.h"

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

/* base[p * stride + i] = <passage p, centre of the owner first + i>, of all up to `last`. */
INLINE void bases(const struct codes *codes, const struct query *q, int64_t first, int64_t last,
                  float *base, int64_t stride)
{
    for (int64_t i = first; i < last; i += 2) {
        const int16_t *one = codes->centre + i * codes->dim;
        const int16_t *two = i + 1 < last ? one + codes->dim : one; /* again; nobody reads it */
        for (int64_t at = 0; at < 4 * codes->dim; at += LINE)
            __builtin_prefetch((const char *)one + AHEAD + at);
        dots_of_two(one, two, 1, q->emb, q->passages, codes->dim, base + i - first, stride);
    }
}

/* What a call needs for one chunk of rows, and for the intervals of one song or text. */
struct space {
    struct factors factors;
    int32_t *dot, *more;
    float *base; /* of one passage after another, each with room for one owner more */
    float *part; /* of a passage in the bound of one song */
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
    int found = make_factors(codes, q, &s->factors);
    s->dot = calloc(q->passages * s->stride, sizeof *s->dot);
    s->more = malloc(q->passages * blocks_of(longest) * BLOCK * sizeof *s->more);
    s->base = malloc(q->passages * (owners + 1) * sizeof *s->base);
    s->part = malloc(q->passages * sizeof *s->part);
    s->room = malloc((2 * count + 4) * vecs * sizeof *s->room);
    s->spare = s->room + 2 * count * vecs;
    return found && s->dot && s->more && s->base && s->part && s->room;
}

INLINE void free_space(struct space *s)
{
    free_factors(&s->factors);
    free(s->dot);
    free(s->more);
    free(s->base);
    free(s->part);
    free(s->room);
}
#endif
