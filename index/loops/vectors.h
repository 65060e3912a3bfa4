/* Eight floats at a time, and what attention does with the similarities of one song.
 *
 * Every file of loops is built for any processor, and once more for AVX2 (avx2.h). Sums of floats may
 * be reordered and fused; the roundings that search allows for cover it.
 */
#ifndef LONGPLAY_VECTORS_H
#define LONGPLAY_VECTORS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifndef LOOP
#define LOOP(name) longplay_##name##_plain /* what is called from outside */
#endif
#define INLINE static inline __attribute__((always_inline))
#define LANES 8       /* floats that are worked on together */
#define LEAST -80.0f  /* below exp(-80) a clip's weight is nothing in float32 */
#define PADDING -1e4f /* similarity of what only fills a vector: its weight is exp(LEAST) */

#define LINE 64 /* bytes that a cache takes in at once */
/* How far ahead bytes are asked for: the processor by itself reads half as fast. Behind the last block
 * this asks for nothing, which does no harm.
 */
#define AHEAD 4096

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE int64_t vecs_of(int64_t n) { return (n + LANES - 1) / LANES; }

INLINE vec floats(ivec x) { return __builtin_convertvector(x, vec); }

/* Where a condition holds a, else b. */
INLINE vec where(ivec condition, vec a, vec b)
{
    return (vec)(((ivec)a & condition) | ((ivec)b & ~condition));
}

INLINE vec larger(vec a, vec b)
{
#ifdef __AVX2__
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return where(a > b, a, b);
#endif
}

/* exp(x) for numbers of at most 0, those below LEAST as LEAST; relative error 3e-7 + 1.2e-7 |x|. */
#define DEFINE_EXP(name, vec, ivec, larger)                                                        \
    INLINE void name(vec *to, const vec *from)                                                     \
    {                                                                                              \
        vec x = larger(*from, LEAST - (vec){0});                                                   \
        vec y = x * 1.4426950408889634f;                                                           \
        ivec whole = __builtin_convertvector(y - 0.5f, ivec); /* to 0: the nearest, as y <= 0 */    \
        vec z = (y - __builtin_convertvector(whole, vec)) * 0.6931471805599453f;                   \
        vec high = 1.0f / 6 + z * (1.0f / 24 + z * (1.0f / 120 + z * (1.0f / 720)));               \
        ivec power = (whole + 127) << 23;                                                          \
        *to = (1.0f + z * (1.0f + z * (0.5f + z * high))) * (vec)power;                            \
    }
DEFINE_EXP(exp_of, vec, ivec, larger)

INLINE float sum_of(vec x)
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

INLINE float most_of(vec x)
{
    x = larger(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = larger(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    return x[0] > x[1] ? x[0] : x[1];
}

INLINE float greatest(const vec *x, int64_t vecs)
{
    vec top = x[0];
    for (int64_t i = 1; i < vecs; i++)
        top = larger(top, x[i]);
    return most_of(top);
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
#endif
