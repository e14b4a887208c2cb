// AVX-512 with VNNI: tiles of 6 pixels x 64 outputs, 12 x 32 and 24 x 16, two bits a weight decoded beside the dot products.
#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header starts its undefined vectors so (bug 105593)
#endif
#include <immintrin.h>

#include "kernels/conv/layout.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace conv_isa_avx512vnni {
namespace {

struct Vector {
  using I = __m512i;
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kMaxVectors = 4;
  static constexpr int kSums = 24;  // + 4 of weights, a broadcast, a table, two masks = 32 registers

  static I load(const void* p) { return _mm512_loadu_si512(p); }
  static F load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static void store(int32_t* p, I v) { _mm512_store_si512(p, v); }
  static I splat(int32_t v) { return _mm512_set1_epi32(v); }
  static F splat(float v) { return _mm512_set1_ps(v); }

  static I broadcast(const uint8_t* p) {
    int32_t quad;
    __builtin_memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
  }
  static I dot(I sum, I x, I w) { return _mm512_dpbusd_epi32(sum, x, w); }

  // Bits Shift and Shift + 1 of every byte, looked up among the four entries of the byte's output.
  template <int Shift>
  static I decode(I codes, I table) {
    const I shifted = Shift ? _mm512_srli_epi16(codes, Shift) : codes;
    const I lane = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    return _mm512_shuffle_epi8(table, _mm512_ternarylogic_epi32(lane, shifted, _mm512_set1_epi8(3), 0xf8));  // a | (b & c)
  }

  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static I to_int(F v) { return _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static I clip(I v) {
    return _mm512_min_epi32(_mm512_max_epi32(v, _mm512_setzero_si512()), _mm512_set1_epi32(255));
  }

  static __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
  static void store_floats(void* p, F v, int64_t count) { _mm512_mask_storeu_ps(p, first(count), v); }
  static void store_bytes(uint8_t* p, I v, int64_t count) { _mm512_mask_cvtepi32_storeu_epi8(p, first(count), v); }
  static I load_bytes(const uint8_t* p, int64_t count) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), p));
  }
};

#include "kernels/conv/tile.h"

}  // namespace
}  // namespace conv_isa_avx512vnni

extern const ConvKernel conv_avx512vnni;
const ConvKernel conv_avx512vnni = {
    "avx512vnni_6x64",           "avx512vnni",
    conv_isa_avx512vnni::fits,   conv_isa_avx512vnni::packed_bytes,
    conv_isa_avx512vnni::pack,   conv_isa_avx512vnni::run,
    conv_panels,
};

}  // namespace tritkit
#endif
