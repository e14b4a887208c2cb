#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/pointwise/pointwise.h"

namespace tritkit {
namespace pointwise_isa_avx512vnni {
namespace {

#include "kernels/lanes_avx512.h"

#include "kernels/pointwise/vector.h"

}  // namespace
}  // namespace pointwise_isa_avx512vnni

extern const PointwiseKernels pointwise_avx512vnni;
const PointwiseKernels pointwise_avx512vnni = {
    "avx512vnni",
    pointwise_isa_avx512vnni::add,
    pointwise_isa_avx512vnni::rescale,
    pointwise_isa_avx512vnni::clip,
};

}  // namespace tritkit
#endif
