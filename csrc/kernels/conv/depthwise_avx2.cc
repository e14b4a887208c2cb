// Depthwise convolution in 256-bit registers, 32 channels. Pairs of products stay below 2^15 as |weight| <= 64.
#if defined(__AVX2__)
#include <immintrin.h>

#include "kernels/conv/conv.h"
#include "kernels/image.h"

namespace tritkit {
namespace depthwise_isa_avx2 {
namespace {

#include "kernels/lanes_avx2.h"

// Interleaving within the 128-bit halves, and its inverse.
struct Mix {
  using B = __m256i;
  static B low_bytes(B a, B b) { return _mm256_unpacklo_epi8(a, b); }
  static B high_bytes(B a, B b) { return _mm256_unpackhi_epi8(a, b); }
  static B low_words(B a, B b) { return _mm256_unpacklo_epi16(a, b); }
  static B high_words(B a, B b) { return _mm256_unpackhi_epi16(a, b); }
  static B narrow(const B* v) { return _mm256_packus_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3])); }
  static B dot(B sum, B x, B w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
};

constexpr int64_t kLeastChannels = 2;

#include "kernels/conv/depthwise.h"

}  // namespace
}  // namespace depthwise_isa_avx2

extern const ConvKernel conv_depthwise_avx2;
const ConvKernel conv_depthwise_avx2 = {
    "avx2_depthwise",         "avx2",
    depthwise_isa_avx2::fits, depthwise_isa_avx2::packed_bytes,
    depthwise_isa_avx2::pack, depthwise_isa_avx2::run,
    depthwise_isa_avx2::panels,   no_scratch,
};

}  // namespace tritkit
#endif
