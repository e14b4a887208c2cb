// Depthwise convolution in 512-bit registers, 64 channels.
#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/conv/conv.h"
#include "kernels/image.h"

namespace tritkit {
namespace depthwise_isa_avx512vnni {
namespace {

#include "kernels/lanes_avx512.h"

// Interleaving within the 128-bit quarters, and its inverse.
struct Mix {
  using B = __m512i;
  static B low_bytes(B a, B b) { return _mm512_unpacklo_epi8(a, b); }
  static B high_bytes(B a, B b) { return _mm512_unpackhi_epi8(a, b); }
  static B low_words(B a, B b) { return _mm512_unpacklo_epi16(a, b); }
  static B high_words(B a, B b) { return _mm512_unpackhi_epi16(a, b); }
  static B narrow(const B* v) { return _mm512_packus_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3])); }
  static B dot(B sum, B x, B w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

constexpr int64_t kLeastChannels = 33;  // fewer fill a 256-bit register at most

#include "kernels/conv/depthwise.h"

}  // namespace
}  // namespace depthwise_isa_avx512vnni

extern const ConvKernel conv_depthwise_avx512vnni;
const ConvKernel conv_depthwise_avx512vnni = {
    "avx512vnni_depthwise",         "avx512vnni",
    depthwise_isa_avx512vnni::fits, depthwise_isa_avx512vnni::packed_bytes,
    depthwise_isa_avx512vnni::pack, depthwise_isa_avx512vnni::run,
    depthwise_isa_avx512vnni::panels,   no_scratch,
};

}  // namespace tritkit
#endif
