#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/pool/pool.h"

namespace tritkit {
namespace pool_isa_avx512vnni {
namespace {

#include "kernels/lanes_avx512.h"

#include "kernels/pool/vector.h"

}  // namespace
}  // namespace pool_isa_avx512vnni

extern const PoolKernels pool_avx512vnni;
const PoolKernels pool_avx512vnni = {
    "avx512vnni",
    pool_isa_avx512vnni::max_pool,
    pool_isa_avx512vnni::average_pool,
};

}  // namespace tritkit
#endif
