// Loops over registers must be unrolled whole, or the registers become memory.
#pragma once
#if defined(__clang__)
#define TRITKIT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TRITKIT_UNROLL _Pragma("GCC unroll 32")
#endif
