#include "avx2.h"
#if WITH_AVX2
#include "scores.c"
#endif
