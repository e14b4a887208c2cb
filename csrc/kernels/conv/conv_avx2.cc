// AVX2 without a dot product instruction: 4 pixels x 16 outputs. Pairs of products stay below 2^15 as |weight| <= 64.
#if defined(__AVX2__)
#include <immintrin.h>

#include "kernels/conv/layout.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace conv_isa_avx2 {
namespace {

struct Dot {
  static constexpr int kPixels = 4;
  static constexpr bool kWords = true;
  static __m256i dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
};

#include "kernels/conv/vector_ymm.h"

#include "kernels/conv/tile.h"

}  // namespace
}  // namespace conv_isa_avx2

extern const ConvKernel conv_avx2;
const ConvKernel conv_avx2 = {
    "avx2_4x16",         "avx2",
    conv_isa_avx2::fits, conv_isa_avx2::packed_bytes,
    conv_isa_avx2::pack, conv_isa_avx2::run,
    conv_panels,            no_scratch,
};

}  // namespace tritkit
#endif
