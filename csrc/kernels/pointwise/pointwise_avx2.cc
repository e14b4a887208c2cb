#if defined(__AVX2__)
#include <immintrin.h>

#include "kernels/pointwise/pointwise.h"

namespace tritkit {
namespace pointwise_isa_avx2 {
namespace {

#include "kernels/lanes_avx2.h"

#include "kernels/pointwise/vector.h"

}  // namespace
}  // namespace pointwise_isa_avx2

extern const PointwiseKernels pointwise_avx2;
const PointwiseKernels pointwise_avx2 = {
    "avx2",
    pointwise_isa_avx2::add,
    pointwise_isa_avx2::rescale,
    pointwise_isa_avx2::clip,
};

}  // namespace tritkit
#endif
