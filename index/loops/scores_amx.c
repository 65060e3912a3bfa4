#include "amx.h"
#if WITH_AMX
#include "scores.c"
#endif
