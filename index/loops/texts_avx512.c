#include "avx512.h"
#if WITH_X86
#include "texts.c"
#endif
