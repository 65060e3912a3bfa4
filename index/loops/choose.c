#include "avx2.h"

/* Whether the loops for AVX2 were built and this processor has it. */
int longplay_has_avx2(void)
{
#if WITH_AVX2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("f16c");
#else
    return 0;
#endif
}
