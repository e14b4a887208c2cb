#if defined(__AVX2__)
#include <immintrin.h>

#include "kernels/quantize/quantize.h"

namespace tritkit {
namespace quantize_isa_avx2 {
namespace {

#include "kernels/lanes_avx2.h"

#include "kernels/quantize/vector.h"

}  // namespace
}  // namespace quantize_isa_avx2

extern const QuantizeKernels quantize_avx2;
const QuantizeKernels quantize_avx2 = {
    "avx2",
    quantize_isa_avx2::quantize,
    quantize_isa_avx2::dequantize,
};

}  // namespace tritkit
#endif
