/* Products of dots.h with AMX: a tile of eight passages, their numbers in two bytes each, times a tile of
 * sixteen rows. A tile has 16 rows of 64 bytes; four bytes that stand together are multiplied and summed.
 */
/* Passages that are multiplied at once; two are quicker by themselves. */
#define TOGETHER_MOST 8
#define TOGETHER_LEAST 3
#define FAR_AHEAD 16384 /* see AHEAD: there is less to do for each row, so more rows to ask for */
#define TILE_UNITS 8    /* of sixteen rows: their half bytes fill a tile */
#define TILE_ROWS 16
#define TILE_BYTES (TILE_ROWS * LINE)
/* Registers: sums, those of the query, as many as rows have tiles, and one of sixteen rows. */
#define SUMS 0
#define BLOCKS 4

struct tiles {
    uint8_t palette, start, nothing[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed, aligned(LINE)));

/* Compilers do not know that tiles read and write memory. */
#define MEMORY() __asm__ volatile("" ::: "memory")

/* Set up the thread's tiles; `before` is how others had them, who may count on that. */
INLINE void begin_dots(struct tiles *before)
{
    struct tiles own = {.palette = 1};
    for (int i = 0; i <= BLOCKS; i++) {
        own.rows[i] = TILE_ROWS;
        own.bytes[i] = LINE;
    }
    _tile_storeconfig(before);
    MEMORY();
    _tile_loadconfig(&own);
}

INLINE void end_dots(const struct tiles *before)
{
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

INLINE int64_t tiles_of(int64_t units) { return (units + TILE_UNITS - 1) / TILE_UNITS; }

/* Bytes of a query's tiles. */
INLINE int64_t split_bytes(int64_t units, int64_t passages)
{
    return (passages + TOGETHER_MOST - 1) / TOGETHER_MOST * tiles_of(units) * TILE_BYTES;
}

/* The tiles of each eight passages: row p has the upper bytes of passage p of them, row 8 + p the lower,
 * which have a sign as well, in the order of unpack_rows().
 */
INLINE void split_query(const int16_t *coef, int64_t units, int64_t passages, int8_t *to)
{
    memset(to, 0, split_bytes(units, passages));
    for (int64_t p = 0; p < passages; p++)
        for (int64_t i = 0; i < units * 2 * PAIRS; i++) {
            int64_t unit = i / (2 * PAIRS), pair = i % (2 * PAIRS) / 2;
            int64_t row = 2 * (unit % TILE_UNITS) + pair % 2, at = i % 2 * 2 + pair / 2;
            int8_t *own = to
                + (p / TOGETHER_MOST * tiles_of(units) + unit / TILE_UNITS) * TILE_BYTES
                + p % TOGETHER_MOST * LINE + row * UNIT + at;
            int16_t number = coef[p * units * 2 * PAIRS + i];
            int8_t lower = (int8_t)(number & 255);
            own[0] = (int8_t)((number - lower) / 256);
            own[TOGETHER_MOST * LINE] = lower;
        }
}

/* The half bytes of two blocks, each in a byte: two rows of tiles for each unit. */
INLINE void unpack_rows(const uint8_t *one, const uint8_t *two, int64_t units, uint8_t *to)
{
    __m512i half = _mm512_set1_epi8(15);
    for (int64_t u = 0; u < units; u++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(one + u * BLOCK * UNIT));
        __m256i b = _mm256_loadu_si256((const __m256i *)(two + u * BLOCK * UNIT));
        __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        _mm512_store_si512(to + 2 * u * LINE, _mm512_and_si512(both, half));
        _mm512_store_si512(
            to + (2 * u + 1) * LINE, _mm512_and_si512(_mm512_srli_epi16(both, 4), half));
    }
}

/* Sums of `some` passages with two blocks, or with the first of them only. */
INLINE void store_sums(const int32_t *sums, int64_t some, int only_one, int32_t *dot, int64_t stride)
{
    for (int64_t p = 0; p < some; p++) {
        __m512i upper = _mm512_load_si512(sums + p * TILE_ROWS);
        __m512i lower = _mm512_load_si512(sums + (p + TOGETHER_MOST) * TILE_ROWS);
        __m512i all = _mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower);
        if (only_one)
            _mm256_storeu_si256((__m256i *)(dot + p * stride), _mm512_castsi512_si256(all));
        else
            _mm512_storeu_si512(dot + p * stride, all);
    }
}

/* all_dots() of up to eight passages, whose tiles are `split`; units is a constant. */
INLINE void amx_dots(const uint8_t *first, const uint8_t *last, int64_t units, const int8_t *split,
                     int64_t some, int32_t *dot, int64_t stride)
{
    int64_t each = units * BLOCK * UNIT;
    uint8_t rows[3 * TILE_BYTES] __attribute__((aligned(LINE)));
    int32_t sums[TILE_ROWS * TILE_ROWS] __attribute__((aligned(LINE)));
    memset(rows + 2 * units * LINE, 0, tiles_of(units) * TILE_BYTES - 2 * units * LINE);
    _tile_loadd(1, split, LINE);
    if (units > TILE_UNITS)
        _tile_loadd(2, split + TILE_BYTES, LINE);
    if (units > 2 * TILE_UNITS)
        _tile_loadd(3, split + 2 * TILE_BYTES, LINE);
    for (; first < last; first += 2 * each, dot += 2 * BLOCK) {
        int only_one = first + each >= last;
        for (int64_t at = 0; at < 2 * each; at += LINE)
            __builtin_prefetch(first + FAR_AHEAD + at);
        unpack_rows(first, only_one ? first : first + each, units, rows);
        MEMORY();
        _tile_zero(SUMS);
        _tile_loadd(BLOCKS, rows, LINE);
        _tile_dpbsud(SUMS, 1, BLOCKS);
        if (units > TILE_UNITS) {
            _tile_loadd(BLOCKS, rows + TILE_BYTES, LINE);
            _tile_dpbsud(SUMS, 2, BLOCKS);
        }
        if (units > 2 * TILE_UNITS) {
            _tile_loadd(BLOCKS, rows + 2 * TILE_BYTES, LINE);
            _tile_dpbsud(SUMS, 3, BLOCKS);
        }
        _tile_stored(SUMS, sums, LINE);
        MEMORY();
        store_sums(sums, some, only_one, dot, stride);
    }
}
