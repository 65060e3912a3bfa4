/* Whether the loops can be built for processors beside the plainest: by GCC that knows AVX-512 VNNI. */
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 8 && !defined(__clang__)
#define WITH_X86 1
#else
#define WITH_X86 0
#endif
/* And for AMX, which a process has to ask Linux for. */
#if WITH_X86 && __GNUC__ >= 11 && defined(__linux__)
#define WITH_AMX 1
#else
#define WITH_AMX 0
#endif
