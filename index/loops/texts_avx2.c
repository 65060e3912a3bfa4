#include "avx2.h"
#if WITH_X86
#include "texts.c"
#endif
