/* The loops that read every clip: bounds from codes, and scores in float32.
 *
 * Called by index/kernels.py and index/text_kernels.py through ctypes, which checks types; NumPy does the same work where this
 * was not compiled. Each call works on its own songs, so several threads may call at once. Built once
 * for any processor and once for AVX2, chosen when called. Sums of floats may be reordered and fused;
 * the roundings that search allows for cover it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define WIDTH 48      /* bytes of a code, as index/codes.py has it */
#define MORE 80       /* bytes of its second half */
#define LANES 8       /* floats that are worked on together */
#define LEAST -80.0f  /* below exp(-80) a clip's weight is nothing in float32 */
#define PADDING -1e4f /* similarity of what only fills the last eight: its weight is exp(LEAST) */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* exp(x) for numbers of at most 0, those below LEAST as LEAST; relative error 3e-7 + 1.2e-7 |x|. */
INLINE void exp_of(vec *to, const vec *from)
{
    ivec low = *from < LEAST;
    vec x = (vec)(((ivec)*from & ~low) | ((ivec)(LEAST - (vec){0}) & low));
    vec y = x * 1.4426950408889634f;
    ivec whole = __builtin_convertvector(y - 0.5f, ivec); /* towards 0: the nearest, as y <= 0 */
    vec z = (y - __builtin_convertvector(whole, vec)) * 0.6931471805599453f;
    vec high = 1.0f / 6 + z * (1.0f / 24 + z * (1.0f / 120 + z * (1.0f / 720)));
    ivec power = (whole + 127) << 23;
    *to = (1.0f + z * (1.0f + z * (0.5f + z * high))) * (vec)power;
}

INLINE vec larger(vec a, vec b)
{
    ivec first = a > b;
    return (vec)(((ivec)a & first) | ((ivec)b & ~first));
}

INLINE float sum_of(vec x)
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

INLINE float greatest(const vec *x, int64_t vecs)
{
    vec top = x[0];
    for (int64_t i = 1; i < vecs; i++)
        top = larger(top, x[i]);
    float most = top[0];
    for (int i = 1; i < LANES; i++)
        most = top[i] > most ? top[i] : most;
    return most;
}

/* Softmax average of similarities that were padded to whole vectors. */
INLINE float pool(const vec *sim, int64_t vecs, float per_tau)
{
    float top = greatest(sim, vecs);
    vec total = {0}, value = {0};
    for (int64_t i = 0; i < vecs; i++) {
        vec below = sim[i] - top, power = below * per_tau;
        exp_of(&power, &power);
        total += power;
        value += power * below;
    }
    return top + sum_of(value) / sum_of(total);
}

/* Upper bound of the softmax average where similarity c lies within slack[c] of sim[c].
 *
 * g(v) = sum_c max(f_v(sim[c] - slack[c]), f_v(sim[c] + slack[c])), f_v(s) = exp(s / tau) (s - v), is
 * convex, falls, and is 0 at the greatest average. So a Newton step from `left`, an average that is
 * reached, stays at or below that, and a chord to a point beyond it meets 0 at or above it.
 */
INLINE float highest(const vec *sim, const vec *slack, vec *less, vec *more, int64_t vecs,
                     float per_tau, float left)
{
    for (int64_t i = 0; i < vecs; i++)
        more[i] = sim[i] + slack[i];
    float top = greatest(more, vecs), right = top;
    for (int64_t i = 0; i < vecs; i++) {
        vec low = (sim[i] - slack[i] - top) * per_tau, high = (sim[i] + slack[i] - top) * per_tau;
        exp_of(less + i, &low);
        exp_of(more + i, &high);
    }
    for (int step = 0; step < 3; step++) {
        vec at_left = {0}, at_right = {0}, slope = {0};
        for (int64_t i = 0; i < vecs; i++) {
            vec low = sim[i] - slack[i], high = sim[i] + slack[i];
            vec x = less[i] * (low - left), y = more[i] * (high - left);
            ivec lower = x > y;
            at_left += larger(x, y);
            slope += (vec)(((ivec)less[i] & lower) | ((ivec)more[i] & ~lower));
            at_right += larger(less[i] * (low - right), more[i] * (high - right));
        }
        float l = sum_of(at_left), r = sum_of(at_right);
        if (!(l > 0 && r < 0))
            break;
        float chord = left + (right - left) * (l / (l - r));
        right = chord < right ? chord : right;
        left += l / sum_of(slope);
        left = left < right ? left : right;
    }
    return right;
}

/* dot[c * passages + p] = <coef[p], code[c]>; width is a constant. */
INLINE void dots_plain(const int8_t *code, int width, int64_t n, const int16_t *coef,
                       int64_t passages, int32_t *dot)
{
    for (int64_t c = 0; c < n; c++)
        for (int64_t p = 0; p < passages; p++) {
            int32_t sum = 0;
            for (int d = 0; d < width; d++)
                sum += (int32_t)code[c * width + d] * coef[p * width + d];
            dot[c * passages + p] = sum;
        }
}

/* best[p] = the greatest <coef[p], code[c]> of n codes. */
INLINE void best_plain(const int8_t *code, int64_t n, const int16_t *coef, int64_t passages,
                       int32_t *best)
{
    for (int64_t p = 0; p < passages; p++)
        best[p] = INT32_MIN;
    for (int64_t c = 0; c < n; c++)
        for (int64_t p = 0; p < passages; p++) {
            int32_t one;
            dots_plain(code + c * WIDTH, WIDTH, 1, coef + p * WIDTH, 1, &one);
            best[p] = one > best[p] ? one : best[p];
        }
}

#if defined(__x86_64__)
#define ON_AVX2 __attribute__((target("avx2,fma")))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))

/* Four codes from c on as 16-bit numbers, the last one again where there are fewer. */
ON_AVX2 INLINE void load_four(const int8_t *code, int width, int64_t c, int64_t n,
                              __m256i x[4][MORE / 16])
{
    for (int i = 0; i < 4; i++) {
        int64_t row = c + i < n ? c + i : n - 1;
        for (int part = 0; part < width / 16; part++)
            x[i][part] = _mm256_cvtepi8_epi16(
                _mm_loadu_si128((const __m128i *)(code + row * width + part * 16)));
    }
}

/* <q, code> of four codes. */
ON_AVX2 INLINE __m128i four_dots(__m256i x[4][MORE / 16], const int16_t *q, int width)
{
    __m256i sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = _mm256_setzero_si256();
    for (int part = 0; part < width / 16; part++) {
        __m256i some = _mm256_loadu_si256((const __m256i *)(q + part * 16));
        for (int i = 0; i < 4; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(x[i][part], some));
    }
    __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]),
                                    _mm256_hadd_epi32(sum[2], sum[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

ON_AVX2 INLINE void best_avx2(const int8_t *code, int64_t n, const int16_t *coef,
                              int64_t passages, int32_t *best)
{
    __m128i kept[8];
    for (int64_t from = 0; from < passages; from += 8) {
        int64_t some = passages - from < 8 ? passages - from : 8;
        for (int64_t p = 0; p < some; p++)
            kept[p] = _mm_set1_epi32(INT32_MIN);
        for (int64_t c = 0; c < n; c += 4) {
            __m256i x[4][MORE / 16];
            load_four(code, WIDTH, c, n, x);
            for (int64_t p = 0; p < some; p++)
                kept[p] = _mm_max_epi32(kept[p], four_dots(x, coef + (from + p) * WIDTH, WIDTH));
        }
        for (int64_t p = 0; p < some; p++) {
            __m128i two = _mm_max_epi32(kept[p], _mm_srli_si128(kept[p], 8));
            __m128i one = _mm_max_epi32(two, _mm_srli_si128(two, 4));
            best[from + p] = _mm_cvtsi128_si32(one);
        }
    }
}

ON_AVX2 INLINE void dots_avx2(const int8_t *code, int width, int64_t n, const int16_t *coef,
                              int64_t passages, int32_t *dot)
{
    for (int64_t c = 0; c < n; c += 4) {
        __m256i x[4][MORE / 16];
        load_four(code, width, c, n, x);
        for (int64_t p = 0; p < passages; p++) {
            int32_t four[4];
            _mm_storeu_si128((__m128i *)four, four_dots(x, coef + p * width, width));
            for (int64_t i = 0; i < 4 && c + i < n; i++)
                dot[(c + i) * passages + p] = four[i];
        }
    }
}
#else
#define ON_AVX2
#define HAS_AVX2 0
#define best_avx2 best_plain
#define dots_avx2 dots_plain
#endif

/* The mean of <q, code[c]> is <q, sum of codes> / n. */
INLINE float mean_dot(const int8_t *code, int64_t n, const int16_t *q)
{
    int64_t sum = 0;
    for (int d = 0; d < WIDTH; d++) {
        int64_t column = 0;
        for (int64_t c = 0; c < n; c++)
            column += code[c * WIDTH + d];
        sum += column * q[d];
    }
    return (float)((double)sum / (double)n);
}

#define SCAN_PARAMETERS                                                                       \
    (const int8_t *code, const int64_t *offsets, int64_t first, int64_t last,                 \
     const int16_t *coef, const float *step, const float *shift, const float *weight,         \
     const int64_t *begins, int64_t queries, int64_t songs, float *out)
#define SCAN_BODY(best_of)                                                                    \
    {                                                                                         \
        int64_t passages = begins[queries];                                                   \
        int32_t *best = malloc(passages * sizeof *best);                                      \
        for (int64_t j = first; best && j < last; j++) {                                      \
            const int8_t *own = code + offsets[j] * WIDTH;                                    \
            int64_t n = offsets[j + 1] - offsets[j];                                          \
            best_of(own, n, coef, passages, best);                                            \
            for (int64_t q = 0; q < queries; q++) {                                           \
                float total = 0;                                                              \
                for (int64_t p = begins[q]; p < begins[q + 1]; p++)                           \
                    total += weight[p] >= 0                                                   \
                        ? weight[p] * ((float)best[p] * step[p] + shift[p])                   \
                        : -weight[p]                                                          \
                            * (mean_dot(own, n, coef + p * WIDTH) * step[p] + shift[p]);      \
                out[q * songs + j] = total;                                                   \
            }                                                                                 \
        }                                                                                     \
        int failed = !best;                                                                   \
        free(best);                                                                           \
        return failed;                                                                        \
    }

/* Bounds of the songs first..last for each query, whose passages begin at begins[q]; all return 0, or 1 where there was no memory. */
ON_AVX2 static int scan_avx2 SCAN_PARAMETERS SCAN_BODY(best_avx2)
static int scan_plain SCAN_PARAMETERS SCAN_BODY(best_plain)
int longplay_scan SCAN_PARAMETERS
{
    return (HAS_AVX2 ? scan_avx2 : scan_plain)(code, offsets, first, last, coef, step, shift,
                                               weight, begins, queries, songs, out);
}

INLINE int64_t vecs_of(int64_t n) { return (n + LANES - 1) / LANES; }

/* A coded query: see CodedQuery in index/kernels.py. */
struct query {
    const int16_t *coef, *more_coef;
    const float *step, *more_step, *shift, *reach, *margin, *weight;
    int64_t passages;
};

/* Similarities of one song with passage p, and how far off they may be, padded to whole vectors. */
INLINE void intervals(const struct query *q, int64_t p, const int8_t *more, int64_t n,
                      const int32_t *dot, const int32_t *more_dot, float *sim, float *slack)
{
    for (int64_t c = 0; c < n; c++) {
        int64_t at = c * q->passages + p;
        sim[c] = dot[at] * q->step[p] + more_dot[at] * q->more_step[p] + q->shift[p];
        slack[c] = q->reach[p] * more[c * MORE + MORE - 1] + q->margin[p];
    }
    for (int64_t c = n; c % LANES; c++) {
        sim[c] = PADDING;
        slack[c] = 0;
    }
}

/* Bound and estimate of one song; room holds 4 vectors of similarities for each passage.
 *
 * First the bound of MaxSim; only where that reaches the bar, the one from softmax averages.
 */
INLINE void refine_song(const struct query *q, const int8_t *more, int64_t n, const int32_t *dot,
                        const int32_t *more_dot, float per_tau, float bar, vec *room,
                        float *upper, float *middle)
{
    int64_t vecs = vecs_of(n);
    vec *less = room, *high = less + vecs, *every = high + vecs;
    *upper = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        vec *sim = every + 2 * p * vecs, *slack = sim + vecs;
        const float *s = (float *)sim, *e = (float *)slack;
        intervals(q, p, more, n, dot, more_dot, (float *)sim, (float *)slack);
        float least = 0, most = s[0] + e[0];
        for (int64_t c = 0; c < n; c++) {
            most = s[c] + e[c] > most ? s[c] + e[c] : most;
            least += s[c] - e[c];
        }
        /* Attention weighs similar clips more: an average is at least the plain mean. */
        *upper += q->weight[p] * (q->weight[p] < 0 ? least / n : most);
    }
    *middle = *upper;
    if (*upper < bar)
        return;
    *upper = *middle = 0;
    for (int64_t p = 0; p < q->passages; p++) {
        vec *sim = every + 2 * p * vecs, *slack = sim + vecs;
        float value = pool(sim, vecs, per_tau), least = 0;
        for (int64_t c = 0; c < n; c++)
            least += ((float *)sim)[c] - ((float *)slack)[c];
        *middle += q->weight[p] * value;
        *upper += q->weight[p] * (q->weight[p] < 0 ? least / n
                                  : highest(sim, slack, less, high, vecs, per_tau, value));
    }
}

#define REFINE_PARAMETERS                                                                       \
    (const int8_t *code, const int8_t *more, const int64_t *offsets, const int64_t *chosen,     \
     int64_t count, const struct query *q, float tau, float bar, int64_t longest, float *upper, \
     float *middle)
#define REFINE_BODY(dots_of)                                                                    \
    {                                                                                           \
        int64_t passages = q->passages;                                                         \
        vec *room = malloc(vecs_of(longest) * (2 + 2 * passages) * sizeof *room);               \
        int32_t *dot = malloc(2 * longest * passages * sizeof *dot);                            \
        for (int64_t i = 0; room && dot && i < count; i++) {                                    \
            int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;               \
            dots_of(code + from * WIDTH, WIDTH, n, q->coef, passages, dot);                     \
            dots_of(more + from * MORE, MORE, n, q->more_coef, passages, dot + n * passages);   \
            refine_song(q, more + from * MORE, n, dot, dot + n * passages, 1 / tau, bar, room,  \
                        upper + i, middle + i);                                                 \
        }                                                                                       \
        int failed = !(room && dot);                                                            \
        free(room);                                                                             \
        free(dot);                                                                              \
        return failed;                                                                          \
    }

/* Tighter bounds and estimates of chosen songs. */
ON_AVX2 static int refine_avx2 REFINE_PARAMETERS REFINE_BODY(dots_avx2)
static int refine_plain REFINE_PARAMETERS REFINE_BODY(dots_plain)
int longplay_refine REFINE_PARAMETERS
{
    return (HAS_AVX2 ? refine_avx2 : refine_plain)(code, more, offsets, chosen, count, q, tau, bar,
                                                   longest, upper, middle);
}

/* Here and below the roles are exchanged: clips ask, and rows are the passages of texts, each with a
 * weight of at least 0. A bound of MaxSim: sum_r weight[r] * max_c sim[r, c].
 */
#define SCAN_TEXTS_PARAMETERS                                                                   \
    (const int8_t *code, const int64_t *offsets, const float *weight, int64_t first,            \
     int64_t last, const int16_t *coef, const float *step, const float *shift, int64_t clips,   \
     int64_t longest, float *out)
#define SCAN_TEXTS_BODY(dots_of)                                                                \
    {                                                                                           \
        int32_t *dot = malloc(longest * clips * sizeof *dot);                                   \
        for (int64_t i = first; dot && i < last; i++) {                                         \
            int64_t from = offsets[i], n = offsets[i + 1] - from;                               \
            dots_of(code + from * WIDTH, WIDTH, n, coef, clips, dot);                           \
            float total = 0;                                                                    \
            for (int64_t r = 0; r < n; r++) {                                                   \
                float most = dot[r * clips] * step[0] + shift[0];                               \
                for (int64_t c = 1; c < clips; c++) {                                           \
                    float sim = dot[r * clips + c] * step[c] + shift[c];                        \
                    most = sim > most ? sim : most;                                             \
                }                                                                               \
                total += weight[from + r] * most;                                               \
            }                                                                                   \
            out[i] = total;                                                                     \
        }                                                                                       \
        int failed = !dot;                                                                      \
        free(dot);                                                                              \
        return failed;                                                                          \
    }

ON_AVX2 static int scan_texts_avx2 SCAN_TEXTS_PARAMETERS SCAN_TEXTS_BODY(dots_avx2)
static int scan_texts_plain SCAN_TEXTS_PARAMETERS SCAN_TEXTS_BODY(dots_plain)
int longplay_scan_texts SCAN_TEXTS_PARAMETERS
{
    return (HAS_AVX2 ? scan_texts_avx2 : scan_texts_plain)(code, offsets, weight, first, last, coef,
                                                           step, shift, clips, longest, out);
}

/* Bound and estimate of one text, as refine_song: room holds 2 vectors of similarities for each
 * passage, and 2 more.
 */
INLINE void refine_text(const struct query *q, const int8_t *more, const float *weight, int64_t n,
                        const int32_t *dot, const int32_t *more_dot, float per_tau, float bar,
                        vec *room, float *upper, float *middle)
{
    int64_t clips = q->passages, vecs = vecs_of(clips);
    vec *less = room, *high = less + vecs, *every = high + vecs;
    *upper = 0;
    for (int64_t r = 0; r < n; r++) {
        vec *sim = every + 2 * r * vecs, *slack = sim + vecs;
        float *s = (float *)sim, *e = (float *)slack, most = PADDING;
        for (int64_t c = 0; c < clips; c++) {
            int64_t at = r * clips + c;
            s[c] = dot[at] * q->step[c] + more_dot[at] * q->more_step[c] + q->shift[c];
            e[c] = q->reach[c] * more[r * MORE + MORE - 1] + q->margin[c];
            most = s[c] + e[c] > most ? s[c] + e[c] : most;
        }
        for (int64_t c = clips; c % LANES; c++) {
            s[c] = PADDING;
            e[c] = 0;
        }
        *upper += weight[r] * most;
    }
    *middle = *upper;
    if (*upper < bar)
        return;
    *upper = *middle = 0;
    for (int64_t r = 0; r < n; r++) {
        vec *sim = every + 2 * r * vecs, *slack = sim + vecs;
        float value = pool(sim, vecs, per_tau);
        *middle += weight[r] * value;
        *upper += weight[r] * highest(sim, slack, less, high, vecs, per_tau, value);
    }
}

#define REFINE_TEXTS_PARAMETERS                                                                 \
    (const int8_t *code, const int8_t *more, const int64_t *offsets, const float *weight,       \
     const int64_t *chosen, int64_t count, const struct query *q, float tau, float bar,         \
     int64_t longest, float *upper, float *middle)
#define REFINE_TEXTS_BODY(dots_of)                                                              \
    {                                                                                           \
        int64_t clips = q->passages;                                                            \
        vec *room = malloc(vecs_of(clips) * (2 + 2 * longest) * sizeof *room);                  \
        int32_t *dot = malloc(2 * longest * clips * sizeof *dot);                               \
        for (int64_t i = 0; room && dot && i < count; i++) {                                    \
            int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;               \
            dots_of(code + from * WIDTH, WIDTH, n, q->coef, clips, dot);                        \
            dots_of(more + from * MORE, MORE, n, q->more_coef, clips, dot + n * clips);         \
            refine_text(q, more + from * MORE, weight + from, n, dot, dot + n * clips, 1 / tau, \
                        bar, room, upper + i, middle + i);                                      \
        }                                                                                       \
        int failed = !(room && dot);                                                            \
        free(room);                                                                             \
        free(dot);                                                                              \
        return failed;                                                                          \
    }

ON_AVX2 static int refine_texts_avx2 REFINE_TEXTS_PARAMETERS REFINE_TEXTS_BODY(dots_avx2)
static int refine_texts_plain REFINE_TEXTS_PARAMETERS REFINE_TEXTS_BODY(dots_plain)
int longplay_refine_texts REFINE_TEXTS_PARAMETERS
{
    return (HAS_AVX2 ? refine_texts_avx2 : refine_texts_plain)(code, more, offsets, weight, chosen,
                                                               count, q, tau, bar, longest, upper,
                                                               middle);
}

/* float16 to float32 without the factor 2**112, which is put on the query. */
INLINE void widen_half(const int16_t *half, float *wide, int64_t n)
{
    int64_t d = 0;
    for (; d + LANES <= n; d += LANES) {
        ivec bits = __builtin_convertvector(*(const hvec *)(half + d), ivec);
        *(ivec *)(wide + d) = (bits << 13) & (int32_t)0x8fffe000;
    }
    for (; d < n; d++) {
        int32_t bits = (int32_t)((uint32_t)(int32_t)half[d] << 13) & (int32_t)0x8fffe000;
        memcpy(wide + d, &bits, 4);
    }
}

/* to[i] = the sum of x[i], for four vectors. */
INLINE void four_sums(const vec *x, float *to)
{
    vec ab = __builtin_shufflevector(x[0], x[1], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[0], x[1], 1, 9, 3, 11, 5, 13, 7, 15);
    vec cd = __builtin_shufflevector(x[2], x[3], 0, 8, 2, 10, 4, 12, 6, 14)
        + __builtin_shufflevector(x[2], x[3], 1, 9, 3, 11, 5, 13, 7, 15);
    vec all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13)
        + __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; i++)
        to[i] = all[i] + all[i + 4];
}

/* sim[p * stride + r] = <query[p], row r> for 4 passages of 2 rows. */
INLINE void dots_4x2(const float *one, const float *two, const float *query, int64_t dim,
                     float *sim, int64_t stride)
{
    vec sum[8] = {{0}};
    float of_one[4], of_two[4];
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        vec x = *(const vec *)(one + d), y = *(const vec *)(two + d);
        for (int p = 0; p < 4; p++) {
            vec q = *(const vec *)(query + p * dim + d);
            sum[p] += x * q;
            sum[4 + p] += y * q;
        }
    }
    four_sums(sum, of_one);
    four_sums(sum + 4, of_two);
    for (int p = 0; p < 4; p++) {
        for (int64_t e = d; e < dim; e++) {
            of_one[p] += one[e] * query[p * dim + e];
            of_two[p] += two[e] * query[p * dim + e];
        }
        sim[p * stride] = of_one[p];
        sim[p * stride + 1] = of_two[p];
    }
}

/* The same for 1 passage of 2 rows. */
INLINE void dots_1x2(const float *one, const float *two, const float *query, int64_t dim,
                     float *sim)
{
    vec sum[4] = {{0}};
    int64_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        vec q = *(const vec *)(query + d), r = *(const vec *)(query + d + LANES);
        sum[0] += *(const vec *)(one + d) * q;
        sum[1] += *(const vec *)(two + d) * q;
        sum[2] += *(const vec *)(one + d + LANES) * r;
        sum[3] += *(const vec *)(two + d + LANES) * r;
    }
    sim[0] = sum_of(sum[0] + sum[2]);
    sim[1] = sum_of(sum[1] + sum[3]);
    for (; d < dim; d++) {
        sim[0] += one[d] * query[d];
        sim[1] += two[d] * query[d];
    }
}

/* Score of a query with one song of n clips; sim has room for `stride` similarities a passage. */
INLINE float score_pair(const float *query, const float *weight, int64_t passages,
                        const void *rows, int is_half, int64_t n, int64_t dim, float per_tau,
                        int64_t stride, float *sim, float *wide)
{
    for (int64_t c = 0; c < n; c += 2) {
        int64_t second = c + 1 < n ? c + 1 : c; /* the last row twice; padding covers it */
        const float *one = (const float *)rows + c * dim;
        const float *two = (const float *)rows + second * dim;
        if (is_half) {
            widen_half((const int16_t *)rows + c * dim, wide, dim);
            widen_half((const int16_t *)rows + second * dim, wide + dim, dim);
            one = wide;
            two = wide + dim;
        }
        int64_t p = 0;
        for (; p + 4 <= passages; p += 4)
            dots_4x2(one, two, query + p * dim, dim, sim + p * stride + c, stride);
        for (; p < passages; p++)
            dots_1x2(one, two, query + p * dim, dim, sim + p * stride + c);
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

INLINE int score_some(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                      const int64_t *owners, int64_t count, const float *query,
                      const float *weight, int64_t passages, float tau, int64_t longest,
                      float *out)
{
    int64_t stride = vecs_of(longest) * LANES;
    float *sim = malloc(stride * passages * sizeof *sim), *wide = malloc(2 * dim * sizeof *wide);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[owners[i]], n = offsets[owners[i] + 1] - from;
        const void *own = is_half ? (const void *)((const int16_t *)rows + from * dim)
                                  : (const void *)((const float *)rows + from * dim);
        out[i] = score_pair(query, weight, passages, own, is_half, n, dim, 1 / tau, stride, sim,
                            wide);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}

#define SCORE_PARAMETERS                                                                     \
    (const void *rows, int is_half, int64_t dim, const int64_t *offsets,                     \
     const int64_t *owners, int64_t count, const float *query, const float *weight,          \
     int64_t passages, float tau, int64_t longest, float *out)
#define SCORE_BODY                                                                           \
    {                                                                                        \
        return score_some(rows, is_half, dim, offsets, owners, count, query, weight,         \
                          passages, tau, longest, out);                                      \
    }

ON_AVX2 static int score_avx2 SCORE_PARAMETERS SCORE_BODY
static int score_plain SCORE_PARAMETERS SCORE_BODY
int longplay_score SCORE_PARAMETERS
{
    return (HAS_AVX2 ? score_avx2 : score_plain)(rows, is_half, dim, offsets, owners, count, query,
                                                 weight, passages, tau, longest, out);
}

/* The same of chosen texts with one song. */
INLINE int score_some_texts(const void *rows, int is_half, int64_t dim, const int64_t *offsets,
                            const float *weight, const int64_t *chosen, int64_t count,
                            const float *clip, int64_t clips, float tau, int64_t longest,
                            float *out)
{
    int64_t stride = vecs_of(clips) * LANES;
    float *sim = malloc(stride * longest * sizeof *sim);
    float *wide = malloc(is_half ? longest * dim * sizeof *wide : 1);
    for (int64_t i = 0; sim && wide && i < count; i++) {
        int64_t from = offsets[chosen[i]], n = offsets[chosen[i] + 1] - from;
        const float *own = (const float *)rows + from * dim;
        if (is_half) {
            widen_half((const int16_t *)rows + from * dim, wide, n * dim);
            own = wide;
        }
        out[i] = score_pair(own, weight + from, n, clip, 0, clips, dim, 1 / tau, stride, sim, NULL);
    }
    int failed = !(sim && wide);
    free(sim);
    free(wide);
    return failed;
}

#define SCORE_TEXTS_PARAMETERS                                                               \
    (const void *rows, int is_half, int64_t dim, const int64_t *offsets, const float *weight, \
     const int64_t *chosen, int64_t count, const float *clip, int64_t clips, float tau,      \
     int64_t longest, float *out)
#define SCORE_TEXTS_BODY                                                                     \
    {                                                                                        \
        return score_some_texts(rows, is_half, dim, offsets, weight, chosen, count, clip,    \
                                clips, tau, longest, out);                                   \
    }

ON_AVX2 static int score_texts_avx2 SCORE_TEXTS_PARAMETERS SCORE_TEXTS_BODY
static int score_texts_plain SCORE_TEXTS_PARAMETERS SCORE_TEXTS_BODY
int longplay_score_texts SCORE_TEXTS_PARAMETERS
{
    return (HAS_AVX2 ? score_texts_avx2 : score_texts_plain)(rows, is_half, dim, offsets, weight,
                                                             chosen, count, clip, clips, tau,
                                                             longest, out);
}
