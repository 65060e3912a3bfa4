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

/* Ask for the rows that come after the next two: they lie in memory, and are read but once. Behind the
 * last row this asks for nothing, which does no harm.
 */
INLINE void fetch_rows(const char *row, int64_t row_bytes)
{
    for (int64_t at = 4 * row_bytes; at < 6 * row_bytes; at += 64)
        __builtin_prefetch(row + at);
}

/* Score of a query with one song of n clips; sim has room for `stride` similarities a passage, and
 * wide for two rows: those of float16 are widened once where more passages read them.
 */
INLINE float score_pair(const float *query, const float *weight, int64_t passages,
                        const void *rows, int is_half, int64_t n, int64_t dim, float per_tau,
                        int64_t stride, float *sim, float *wide)
{
    int64_t row_bytes = bytes_of(dim, is_half);
    for (int64_t c = 0; c < n; c += 2) {
        const char *one = (const char *)rows + c * row_bytes;
        const char *two = c + 1 < n ? one + row_bytes : one; /* again; padding covers it */
        fetch_rows(one, row_bytes);
        if (is_half && passages > 4) {
            widen_row(one, dim, wide);
            widen_row(two, dim, wide + dim);
            dots_of_two(wide, wide + dim, 0, query, passages, dim, sim + c, stride);
        } else {
            dots_of_two(one, two, is_half, query, passages, dim, sim + c, stride);
        }
    }
    float total = 0;
    for (int64_t p = 0; p < passages; p++) {
        float *own = sim + p * stride;
        for (int64_t c = n; c < vecs_of(n) * LANES; c++)
            own[c] = PADDING;
        total += weight[p] * pool((const vec *)own, vecs_of(n), per_tau);
    }
    return total;
}

/* Scores of some songs with one query. */
int LOOP(score)(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                const int64_t *owners, int64_t count, const float *query, const float *weight,
                int64_t passages, float tau, int64_t longest, float *out)
{
    int64_t stride = vecs_of(longest) * LANES;
    float *sim = malloc(stride * passages * sizeof *sim);
    float *wide = malloc(2 * dim * sizeof *wide);
    ask_for(rows, bytes_of(dim, is_half), offsets, owners, count);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const char *own = (const char *)rows + bytes_of(from * dim, is_half);
        out[i] = is_half
            ? score_pair(query, weight, passages, own, 1, n, dim, 1 / tau, stride, sim, wide)
            : score_pair(query, weight, passages, own, 0, n, dim, 1 / tau, stride, sim, wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
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
        out[i] = score_pair(own, weight + from, n, clip, 0, clips, dim, 1 / tau, stride, sim, wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}
