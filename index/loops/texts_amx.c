#include "amx.h"
#if WITH_AMX
#include "texts.c"
#endif
