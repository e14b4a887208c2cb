// AVX-512 with VNNI: 6 pixels x 64 outputs, two bits a weight decoded beside the dot products.
#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/conv/layout.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace conv_isa_avx512vnni {
namespace {

#include "kernels/conv/vector_zmm.h"

#include "kernels/conv/tile.h"

}  // namespace
}  // namespace conv_isa_avx512vnni

extern const ConvKernel conv_avx512vnni;
const ConvKernel conv_avx512vnni = {
    "avx512vnni_6x64",           "avx512vnni",
    conv_isa_avx512vnni::fits,   conv_isa_avx512vnni::packed_bytes,
    conv_isa_avx512vnni::pack,   conv_isa_avx512vnni::run,
    conv_panels,            no_scratch,
};

}  // namespace tritkit
#endif
