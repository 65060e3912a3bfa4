/* Scores of songs and texts from their embeddings, in float32; called by index/kernels.py and
 * index/text_kernels.py through ctypes. Each call works on its own songs, so several threads may call
 * at once; all return 0, or 1 where there was no memory. Rows are float32, or float16 where is_half.
 */
#include "beside.h"
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define CAN_ADVISE 1
#else
#define CAN_ADVISE 0
#endif

#define FEW 512   /* songs that are asked for at once: more are read in order anyway */
#define APART 4   /* how far apart they then lie at least, in songs */
#define PAGE 4096 /* the least that systems have; a larger page only begins earlier */

/* Ask the system for the rows of scattered songs, all before the first is read: rows that are mapped
 * from a file may lie on disk, and would be waited for one after another.
 */
INLINE void ask_for(const void *rows, int64_t row_bytes, const int64_t *offsets,
                    const int64_t *owners, int64_t count)
{
#if CAN_ADVISE
    int64_t reach = count ? owners[count - 1] - owners[0] : 0;
    if (count > FEW || (reach >= 0 && reach < APART * count))
        return;
    for (int64_t i = 0; i < count; i++) {
        uintptr_t from = (uintptr_t)rows + (uintptr_t)(offsets[owners[i]] * row_bytes);
        uintptr_t to = (uintptr_t)rows + (uintptr_t)(offsets[owners[i] + 1] * row_bytes);
        uintptr_t page = from / PAGE * PAGE;
        posix_madvise((void *)page, to - page, POSIX_MADV_WILLNEED); /* refused: read as before */
    }
#endif
}

/* Ask for rows as many as the next two, AHEAD bytes on: they lie in memory, and are read but once. Behind
 * the last row this asks for nothing, which does no harm.
 */
INLINE void fetch_rows(const char *row, int64_t row_bytes)
{
    for (int64_t at = AHEAD; at < AHEAD + 2 * row_bytes; at += LINE)
        __builtin_prefetch(row + at);
}

/* Score of the first `counted` of up to four passages, or of those of a text, with one song of n clips;
 * sim has room for `stride` similarities a passage.
 */
INLINE float score_few(const float *query, const float *weight, int64_t passages, int64_t counted,
                       const void *rows, int is_half, int64_t n, int64_t dim, float per_tau,
                       int64_t stride, float *sim)
{
    int64_t row_bytes = bytes_of(dim, is_half);
    for (int64_t c = 0; c < n; c += 2) {
        const char *one = (const char *)rows + c * row_bytes;
        const char *two = c + 1 < n ? one + row_bytes : one; /* again; padding covers it */
        fetch_rows(one, row_bytes);
        dots_of_two(one, two, is_half, query, passages, dim, sim + c, stride);
    }
    float total = 0;
    for (int64_t p = 0; p < counted; p++) {
        float *own = sim + p * stride;
        for (int64_t c = n; c < vecs_of(n) * LANES; c++)
            own[c] = PADDING;
        total += weight[p] * pool((const vec *)own, vecs_of(n), per_tau);
    }
    return total;
}

/* A query for songs: its passages in eights, and up to four that are left. */
struct asked {
    const float *query, *weight;
    int64_t passages, dim, eights, left;
    float *beside, *padded;
};

/* Whether the passages that are left stand side by side as well. */
INLINE int in_fours(const struct asked *a) { return FOURS && a->left > 2; }

/* Five passages that are left or more are one eight more. */
INLINE int make_asked(const float *query, const float *weight, int64_t passages, int64_t dim,
                      struct asked *a)
{
    int64_t eights = (passages + EIGHT / 2 - 1) / EIGHT, left = passages - eights * EIGHT;
    int64_t each = beside_size(dim);
    *a = (struct asked){query, weight, passages, dim, eights, left > 0 ? left : 0};
    a->beside = aligned_alloc(LINE, ((eights + 1) * each * sizeof(float) + LINE - 1) / LINE * LINE);
    a->padded = calloc(4 * dim, sizeof *a->padded);
    if (!a->beside || !a->padded)
        return 0;
    for (int64_t e = 0; e < eights; e++)
        set_beside(query + e * EIGHT * dim, passages - e * EIGHT, dim, EIGHT, a->beside + e * each);
    const float *few = query + eights * EIGHT * dim;
    memcpy(a->padded, few, a->left * dim * sizeof *few);
    if (in_fours(a))
        set_beside(few, left, dim, EIGHT / 2, a->beside + eights * each);
    return 1;
}

/* Score of a query with one song of n clips. */
INLINE float score_song(const struct asked *a, const void *rows, int is_half, int64_t n,
                        float per_tau, float *wide, float *sim)
{
    int64_t each = beside_size(a->dim);
    const float *beside = a->beside, *weight = a->weight;
    float total = 0;
    for (int64_t left = a->passages; left > a->left; left -= EIGHT) {
        total += score_beside(
            beside, weight, left, EIGHT, rows, is_half, n, a->dim, per_tau, wide, sim);
        beside += each;
        weight += EIGHT;
    }
    if (in_fours(a))
        return total + score_beside(beside, weight, a->left, EIGHT / 2, rows, is_half, n, a->dim,
                                    per_tau, wide, sim);
    if (!a->left)
        return total;
    int64_t read = a->left == 3 ? 4 : a->left; /* three as four, one of them nothing */
    return total + score_few(a->padded, weight, read, a->left, rows, is_half, n, a->dim, per_tau,
                             vecs_of(n) * LANES, sim);
}

/* Scores of some songs with one query. */
int LOOP(score)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                const int64_t *owners, int64_t count, const float *query, const float *weight,
                int64_t passages, float tau, int64_t longest, float *out)
{
    struct asked a;
    int64_t few = 4 * vecs_of(longest) * LANES, most = sims_size(longest);
    float *sim = malloc((few > most ? few : most) * sizeof *sim);
    float *wide = malloc(wide_size(longest, dim) * sizeof *wide);
    int found = make_asked(query, weight, passages, dim, &a) && sim && wide;
    ask_for(rows, bytes_of(dim, is_half), offsets, owners, count);
    for (int64_t i = 0; found && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const void *own = (const char *)rows + bytes_of(from * dim, is_half);
        out[i] = is_half ? score_song(&a, own, 1, n, 1 / tau, wide, sim)
                         : score_song(&a, own, 0, n, 1 / tau, wide, sim);
    }
    free(a.beside);
    free(a.padded);
    free(sim);
    free(wide);
    return !found;
}

/* The same of chosen texts with one song. */
int LOOP(score_texts)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                      const float *weight, const int64_t *chosen, int64_t count,
                      const float *clip, int64_t clips, float tau, int64_t longest, float *out)
{
    int64_t stride = vecs_of(clips) * LANES;
    float *sim = malloc(stride * longest * sizeof *sim);
    float *wide = malloc(is_half ? longest * dim * sizeof *wide : 1);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;
        const float *own = (const float *)rows + from * dim;
        if (is_half) {
            widen_row((const int16_t *)rows + from * dim, n * dim, wide);
            own = wide;
        }
        out[i] = score_few(own, weight + from, n, n, clip, 0, clips, dim, 1 / tau, stride, sim);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}
