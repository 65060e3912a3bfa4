/* Included before a file of loops: builds it for AVX2, where the compiler can. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WITH_AVX2 1
#pragma GCC target("avx2,fma,f16c")
#define LOOP(name) longplay_##name##_avx2
#else
#define WITH_AVX2 0
#endif
