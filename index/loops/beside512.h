/* Scores of beside.h with AVX-512, of eight passages or of four together: a register holds the sums of each
 * with two rows, or with four. Passage p and row r of `rows` have lane p * rows + r; rows are a constant.
 */
#define FOURS 1

typedef int32_t livec __attribute__((vector_size(4 * LONG), aligned(4), may_alias));

#define SUMS 8 /* groups of rows that are multiplied together: as many sums as hide their latency */

INLINE int64_t sixteens(int64_t n) { return (n + LONG - 1) / LONG; }
INLINE int64_t groups_of(int64_t n, int rows) { return (n + rows - 1) / rows; }

INLINE int64_t beside_size(int64_t dim) { return sixteens(dim) * LONG * LONG; }
INLINE int64_t wide_size(int64_t n, int64_t dim) { return (n + 3) * sixteens(dim) * LONG; }
INLINE int64_t sims_size(int64_t n) { return groups_of(n, 2) * LONG; }

/* The number of a row that stands at place i of sixteen: where interleave() leaves it. */
INLINE int64_t number_at(int64_t i, int rows)
{
    int64_t place = i % LONG, four = rows == 2 ? place % 8 / 2 : place % 4;
    return i - place + 4 * four + (rows == 2 ? place / 8 * 2 + place % 2 : place / 4);
}

/* Each number of all passages, in the lanes of its products, in the order of interleave(). */
INLINE void set_beside(const float *query, int64_t passages, int64_t dim, int together, float *to)
{
    int rows = LONG / together;
    for (int64_t i = 0; i < sixteens(dim) * LONG; i++)
        for (int lane = 0; lane < LONG; lane++) {
            int64_t p = lane / rows, d = number_at(i, rows);
            to[i * LONG + lane] = p < passages && d < dim ? query[p * dim + d] : 0;
        }
}

/* Sixteen numbers of a row from d on, 0 behind its end. */
INLINE lvec numbers_or_none(const void *row, int64_t d, int64_t dim, int is_half)
{
    if (d + LONG <= dim)
        return numbers(row, d, is_half);
    __mmask16 own = (__mmask16)((1 << (dim - d)) - 1);
    if (is_half)
        return (lvec)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(own, (const int16_t *)row + d));
    return (lvec)_mm512_maskz_loadu_ps(own, (const float *)row + d);
}

INLINE __m512 low_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

INLINE __m512 high_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

/* The rows of a song in groups: each number of all rows of a group together. The last row fills the last
 * group. The first half of the song behind is asked for meanwhile.
 */
INLINE void interleave(const void *song, int is_half, int64_t n, int64_t dim, int rows, float *to)
{
    int64_t row_bytes = bytes_of(dim, is_half);
    for (int64_t first = 0; first < n; first += rows) {
        const char *row[4];
        for (int r = 0; r < rows; r++)
            row[r] = (const char *)song + (first + r < n ? first + r : n - 1) * row_bytes;
        const char *ahead = (const char *)song + n * row_bytes + first * row_bytes / 2;
        for (int64_t at = 0; at < rows * row_bytes / 2; at += LINE)
            __builtin_prefetch(ahead + at);
        for (int64_t d = 0; d < dim; d += LONG, to += rows * LONG) {
            __m512 a = (__m512)numbers_or_none(row[0], d, dim, is_half);
            __m512 b = (__m512)numbers_or_none(row[1], d, dim, is_half);
            __m512 low = _mm512_unpacklo_ps(a, b), high = _mm512_unpackhi_ps(a, b);
            if (rows == 2) {
                _mm512_storeu_ps(to, low);
                _mm512_storeu_ps(to + LONG, high);
            } else {
                __m512 c = (__m512)numbers_or_none(row[2], d, dim, is_half);
                __m512 e = (__m512)numbers_or_none(row[3], d, dim, is_half);
                __m512 lower = _mm512_unpacklo_ps(c, e), higher = _mm512_unpackhi_ps(c, e);
                _mm512_storeu_ps(to, low_pairs(low, lower));
                _mm512_storeu_ps(to + LONG, high_pairs(low, lower));
                _mm512_storeu_ps(to + 2 * LONG, low_pairs(high, higher));
                _mm512_storeu_ps(to + 3 * LONG, high_pairs(high, higher));
            }
        }
    }
}

/* The same number of all rows of a group, once for every passage. */
INLINE lvec of_group(const float *at, int rows)
{
    if (rows == 2)
        return (lvec)_mm512_castpd_ps(_mm512_set1_pd(*(const double *)at));
    return (lvec)_mm512_broadcast_f32x4(_mm_loadu_ps(at));
}

/* Similarities of `count` groups, a constant. On the way it asks for `step` bytes from `ahead` on for each
 * number: what is needed next.
 */
INLINE void dots_of_groups(const float *groups, int count, int64_t sixteen, int rows,
                           const lvec *beside, lvec *sim, const char *ahead, int64_t step)
{
    int64_t each = sixteen * LONG * rows;
    lvec sum[SUMS] = {{0}};
    for (int64_t i = 0; i < sixteen * LONG; i++) {
        for (int64_t at = 0; at < step; at += LINE)
            __builtin_prefetch(ahead + i * step + at);
        for (int g = 0; g < count; g++)
            sum[g] += of_group(groups + g * each + i * rows, rows) * beside[i];
    }
    for (int g = 0; g < count; g++)
        sim[g] = sum[g];
}

/* Similarities of all groups of a song; `bytes` from `next` on are asked for meanwhile for each group: where
 * another song is next, or none, this does no harm.
 */
INLINE void dots_of_song(const float *groups, int64_t count, int64_t sixteen, int rows,
                         const lvec *beside, lvec *sim, const char *next, int64_t bytes)
{
    int64_t each = sixteen * LONG * rows, many = count >= SUMS ? SUMS : SUMS / 2, g = 0;
    int64_t step = many * bytes / (sixteen * LONG);
    for (; count < many && g < count; g++)
        dots_of_groups(groups + g * each, 1, sixteen, rows, beside, sim + g, next, 0);
    for (; g < count; g += many) {
        g = g + many < count ? g : count - many; /* some again */
        if (many == SUMS)
            dots_of_groups(groups + g * each, SUMS, sixteen, rows, beside, sim + g,
                           next + g * bytes, step);
        else
            dots_of_groups(groups + g * each, SUMS / 2, sixteen, rows, beside, sim + g,
                           next + g * bytes, step);
    }
}

INLINE lvec larger_long(lvec a, lvec b) { return (lvec)_mm512_max_ps((__m512)a, (__m512)b); }
DEFINE_EXP(exp_of_long, lvec, livec, larger_long)

/* In each lane what all lanes of its passage have together. */
INLINE lvec largest_of_rows(lvec x, int rows)
{
    x = larger_long(x, (lvec)_mm512_permute_ps((__m512)x, 0xb1));
    if (rows == 4)
        x = larger_long(x, (lvec)_mm512_permute_ps((__m512)x, 0x4e));
    return x;
}

INLINE lvec total_of_rows(lvec x, int rows)
{
    x += (lvec)_mm512_permute_ps((__m512)x, 0xb1);
    if (rows == 4)
        x += (lvec)_mm512_permute_ps((__m512)x, 0x4e);
    return x;
}

/* Weighted softmax averages of a song's groups, the last of which has `own` rows. */
INLINE float pool_groups(lvec *sim, int64_t groups, int rows, int64_t own, float per_tau,
                         const float *weight, int64_t passages)
{
    for (int lane = 0; lane < LONG && own < rows; lane++)
        if (lane % rows >= own)
            sim[groups - 1][lane] = PADDING;
    lvec top = sim[0], sum = {0}, value = {0};
    for (int64_t g = 1; g < groups; g++)
        top = larger_long(top, sim[g]);
    top = largest_of_rows(top, rows);
    for (int64_t g = 0; g < groups; g++) {
        lvec below = sim[g] - top, power = below * per_tau;
        exp_of_long(&power, &power);
        sum += power;
        value += power * below;
    }
    top += total_of_rows(value, rows) / total_of_rows(sum, rows);
    float total = 0;
    for (int64_t p = 0; p < LONG / rows && p < passages; p++)
        total += weight[p] * top[p * rows];
    return total;
}

INLINE float score_beside(const float *beside, const float *weight, int64_t passages, int together,
                          const void *song, int is_half, int64_t n, int64_t dim, float per_tau,
                          float *wide, float *sims)
{
    int rows = LONG / together;
    int64_t sixteen = sixteens(dim), groups = groups_of(n, rows);
    lvec *sim = (lvec *)sims;
    interleave(song, is_half, n, dim, rows, wide);
    /* The second half of the song behind: memory is read all the time, and waits for no burst. */
    const char *next = (const char *)song + bytes_of(n * dim, is_half) * 3 / 2;
    dots_of_song(wide, groups, sixteen, rows, (const lvec *)beside, sim, next,
                 bytes_of(rows * dim, is_half) / 2);
    return pool_groups(sim, groups, rows, n - (groups - 1) * rows, per_tau, weight, passages);
}
