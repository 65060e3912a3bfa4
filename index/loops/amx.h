/* Included before a file of loops: builds it for AVX-512 with VNNI and AMX, where the compiler can. */
#include "builds.h"
#if WITH_AMX
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,amx-tile,amx-int8")
#define LOOP(name) longplay_##name##_amx
#endif
