#include "avx512.h"
#if WITH_X86
#include "songs.c"
#endif
