#include "builds.h"

/* Which build of the loops this processor is best served by: 0 plain, 1 AVX2, 2 AVX-512. */
int longplay_best(void)
{
#if WITH_X86
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
          && __builtin_cpu_supports("f16c")))
        return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")
        ? 2
        : 1;
#else
    return 0;
#endif
}
