#if defined(__AVX2__)
#include <immintrin.h>

#include "kernels/pool/pool.h"

namespace tritkit {
namespace pool_isa_avx2 {
namespace {

#include "kernels/lanes_avx2.h"

#include "kernels/pool/vector.h"

}  // namespace
}  // namespace pool_isa_avx2

extern const PoolKernels pool_avx2;
const PoolKernels pool_avx2 = {
    "avx2",
    pool_isa_avx2::max_pool,
    pool_isa_avx2::average_pool,
};

}  // namespace tritkit
#endif
