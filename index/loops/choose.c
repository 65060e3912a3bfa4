#include "builds.h"
#if WITH_AMX
#include <sys/syscall.h>
#include <unistd.h>
#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM of Linux' asm/prctl.h */
#define TILE_DATA 18              /* XFEATURE_XTILEDATA, that of the registers of AMX */

/* Whether the processor has AMX and this process may use it, from now on. */
static int may_use_tiles(void)
{
    return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8")
        && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}
#else
static int may_use_tiles(void) { return 0; }
#endif

/* Which build of the loops this processor is best served by: 0 plain, 1 AVX2, 2 AVX-512, 3 AMX. */
int longplay_best(void)
{
#if WITH_X86
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
          && __builtin_cpu_supports("f16c")))
        return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
          && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")))
        return 1;
    return may_use_tiles() ? 3 : 2;
#else
    (void)may_use_tiles;
    return 0;
#endif
}
