/* A tile of dots.h with AVX-512 and VNNI: two units are multiplied at once, and a number of a passage
 * that was loaded serves two blocks.
 */
#define TILE 2
#define MOST 8 /* passages; about as many sums of each block, so that no product waits for the one before */

/* The half bytes of two units, in pairs. */
INLINE void split_pairs(const uint8_t *units, __m512i *pair)
{
    __m512i x = _mm512_loadu_si512(units), half = _mm512_set1_epi16(15);
    pair[0] = _mm512_and_si512(x, half);
    pair[1] = _mm512_and_si512(_mm512_srli_epi16(x, 4), half);
    pair[2] = _mm512_and_si512(_mm512_srli_epi16(x, 8), half);
    pair[3] = _mm512_srli_epi16(x, 12);
}

/* both + the products of the last of an odd number of units. */
INLINE __m256i last_unit(const uint8_t *unit, const int16_t *own, __m256i both)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)unit), half = _mm256_set1_epi16(15);
    for (int i = 0; i < PAIRS; i++) {
        __m256i q = _mm256_loadu_si256((const __m256i *)(own + i * 2 * BLOCK));
        __m256i pair = _mm256_and_si256(_mm256_srli_epi16(x, 4 * i), half);
        both = _mm256_dpwssd_epi32(both, pair, q);
    }
    return both;
}

INLINE void tile(const uint8_t *block, int64_t units, int blocks, const int16_t *wide, int some,
                 int32_t *dot, int64_t stride)
{
    int64_t u = 0, each = units * PAIRS * 2 * BLOCK, size = units * BLOCK * UNIT;
    int parts = MOST / some < PAIRS ? MOST / some : PAIRS; /* sums of one passage in a block */
    __m512i sum[TILE][MOST], pair[TILE][PAIRS];
    for (int b = 0; b < blocks; b++)
        for (int i = 0; i < MOST; i++)
            sum[b][i] = _mm512_setzero_si512();
    for (; u + 2 <= units; u += 2) {
        for (int b = 0; b < blocks; b++)
            split_pairs(block + b * size + u * BLOCK * UNIT, pair[b]);
        for (int i = 0; i < PAIRS; i++)
            for (int p = 0; p < some; p++) {
                __m512i q = _mm512_loadu_si512(wide + p * each + place_of(units, u, i));
                int k = i % parts * some + p;
                for (int b = 0; b < blocks; b++)
                    sum[b][k] = _mm512_dpwssd_epi32(sum[b][k], pair[b][i], q);
            }
    }
    for (int b = 0; b < blocks; b++)
        for (int p = 0; p < some; p++) {
            __m512i all = sum[b][p];
            for (int k = p + some; k < parts * some; k += some)
                all = _mm512_add_epi32(all, sum[b][k]);
            __m256i both = _mm256_add_epi32(_mm512_castsi512_si256(all),
                                            _mm512_extracti64x4_epi64(all, 1));
            if (u < units)
                both = last_unit(block + b * size + u * BLOCK * UNIT,
                                 wide + p * each + place_of(units, u, 0), both);
            _mm256_storeu_si256((__m256i *)(dot + p * stride + b * BLOCK), both);
        }
}
