/* Whether the loops can be built for processors beside the plainest: by GCC. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WITH_X86 1
#else
#define WITH_X86 0
#endif
