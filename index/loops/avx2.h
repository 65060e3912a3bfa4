/* Included before a file of loops: builds it for AVX2, where the compiler can. */
#include "builds.h"
#if WITH_X86
#pragma GCC target("avx2,fma,f16c")
#define LOOP(name) longplay_##name##_avx2
#endif
