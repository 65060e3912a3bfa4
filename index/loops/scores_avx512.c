#include "avx512.h"
#if WITH_X86
#include "scores.c"
#endif
