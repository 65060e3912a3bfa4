/* Scores of songs and texts from their embeddings, in float32; called by index/kernels.py and
 * index/text_kernels.py through ctypes. Each call works on its own songs, so several threads may call
 * at once; all return 0, or 1 where there was no memory. Rows are float32, or float16 where is_half.
 */
#include "products.h"
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

/* A query for songs: its passages in eights side by side, and up to four that are left. */
struct asked {
    const float *weight, *few;
    int64_t passages, dim, eights, left, read;
    vec *beside;
    float *padded;
};

/* Five passages that are left or more are one eight more; three are read as four, one of them nothing. */
INLINE int make_asked(const float *query, const float *weight, int64_t passages, int64_t dim,
                      struct asked *a)
{
    int64_t eights = (passages + EIGHT / 2 - 1) / EIGHT, done = eights * EIGHT;
    int64_t left = passages > done ? passages - done : 0;
    *a = (struct asked){weight, query + done * dim, passages, dim, eights, left, left};
    a->beside = malloc(eights * dim * sizeof *a->beside + 1);
    a->padded = calloc(4 * dim, sizeof *a->padded);
    if (!a->beside || !a->padded)
        return 0;
    for (int64_t e = 0; e < eights; e++)
        side_by_side(query + e * EIGHT * dim, passages - e * EIGHT, dim, a->beside + e * dim);
    if (left == 3) {
        memcpy(a->padded, a->few, 3 * dim * sizeof *a->padded);
        a->few = a->padded;
        a->read = 4;
    }
    return 1;
}

/* Weighted softmax averages of eight passages at once; a clip's similarities are one vector. */
INLINE float pool_eight(const vec *sim, int64_t n, float per_tau, const float *weight,
                        int64_t passages)
{
    vec top = sim[0], sum = {0}, value = {0};
    for (int64_t c = 1; c < n; c++)
        top = larger(top, sim[c]);
    for (int64_t c = 0; c < n; c++) {
        vec below = sim[c] - top, power = below * per_tau;
        exp_of(&power, &power);
        sum += power;
        value += power * below;
    }
    float total = 0;
    top += value / sum;
    for (int p = 0; p < EIGHT && p < passages; p++)
        total += weight[p] * top[p];
    return total;
}

/* What the eights of a query give with n rows; sim has room for them. The rows of the song behind,
 * which lie at `next`, `step` bytes for each of 8 numbers, are asked for meanwhile: where another is
 * next, or none, this does no harm.
 */
INLINE float score_eights(const struct asked *a, const float *rows, int64_t n, float per_tau,
                          vec *sim, const char *next, int64_t step)
{
    float total = 0;
    for (int64_t e = 0; e < a->eights; e++) {
        const vec *beside = a->beside + e * a->dim;
        int64_t c = 0;
        for (; c + ROWS <= n; c += ROWS)
            dots_of_eight(rows + c * a->dim, ROWS, a->dim, beside, sim + c,
                          next + c * a->dim * step / ROWS, step);
        if (c < n && n > ROWS) /* some again */
            dots_of_eight(rows + (n - ROWS) * a->dim, ROWS, a->dim, beside, sim + n - ROWS,
                          next + (n - ROWS) * a->dim * step / ROWS, step);
        else
            for (; c < n; c++)
                dots_of_eight(rows + c * a->dim, 1, a->dim, beside, sim + c, next, 0);
        total += pool_eight(sim, n, per_tau, a->weight + e * EIGHT, a->passages - e * EIGHT);
    }
    return total;
}

/* Scores of some songs with one query. */
int LOOP(score)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                const int64_t *owners, int64_t count, const float *query, const float *weight,
                int64_t passages, float tau, int64_t longest, float *out)
{
    struct asked a;
    int64_t stride = vecs_of(longest) * LANES;
    vec *sim = malloc((longest + 4 * vecs_of(longest)) * sizeof *sim);
    float *wide = malloc(longest * dim * sizeof *wide);
    int found = make_asked(query, weight, passages, dim, &a) && sim && wide;
    ask_for(rows, bytes_of(dim, is_half), offsets, owners, count);
    for (int64_t i = 0; found && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const void *own = (const char *)rows + bytes_of(from * dim, is_half);
        out[i] = 0;
        if (a.eights) {
            if (is_half)
                widen_row(own, n * dim, wide);
            else
                memcpy(wide, own, n * dim * sizeof *wide);
            out[i] = score_eights(&a, wide, n, 1 / tau, sim,
                                  (const char *)own + bytes_of(n * dim, is_half),
                                  bytes_of(ROWS, is_half));
        }
        if (a.left) {
            const float *few = weight + a.eights * EIGHT;
            out[i] += is_half ? score_few(a.few, few, a.read, a.left, own, 1, n, dim, 1 / tau,
                                          stride, (float *)sim)
                              : score_few(a.few, few, a.read, a.left, own, 0, n, dim, 1 / tau,
                                          stride, (float *)sim);
        }
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
