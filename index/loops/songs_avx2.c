#include "avx2.h"
#if WITH_AVX2
#include "songs.c"
#endif
