#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/quantize/quantize.h"

namespace tritkit {
namespace quantize_isa_avx512vnni {
namespace {

#include "kernels/lanes_avx512.h"

#include "kernels/quantize/vector.h"

}  // namespace
}  // namespace quantize_isa_avx512vnni

extern const QuantizeKernels quantize_avx512vnni;
const QuantizeKernels quantize_avx512vnni = {
    "avx512vnni",
    quantize_isa_avx512vnni::quantize,
    quantize_isa_avx512vnni::dequantize,
};

}  // namespace tritkit
#endif
