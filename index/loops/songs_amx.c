#include "amx.h"
#if WITH_AMX
#include "songs.c"
#endif
