/* Included before a file of loops: builds it for AVX-512 with VNNI, where the compiler can. */
#include "builds.h"
#if WITH_X86
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")
#define LOOP(name) longplay_##name##_avx512
#endif
