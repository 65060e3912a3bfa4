/* Planes of codes, as index/codes.py lays them out, and coded queries. */
#ifndef LONGPLAY_CODES_H
#define LONGPLAY_CODES_H
#include "vectors.h"

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
#endif
