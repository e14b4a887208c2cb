// Baked convolutions in 256-bit registers.
#if defined(__AVX2__) && defined(__unix__)
#include <immintrin.h>

#include "kernels/baked/baked.h"
#include "kernels/baked/emitter.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace baked_isa_avx2 {
namespace {

struct Dot {  // what vector_ymm.h asks for and nothing here uses
  static constexpr int kPixels = 1;
  static constexpr bool kWords = false;
  static __m256i dot(__m256i sum, __m256i, __m256i) { return sum; }
};

#include "kernels/conv/vector_ymm.h"

using I = Vector::I;
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums;
constexpr int64_t kPixels = BakedGeometry::kLanes;  // of a block
constexpr int kHalves = Emitter256::kHalves;

// --- pixels to planes -------------------------------------------------------------------------------------------------------

// 16 rows of 16 bytes become 16 columns.
inline void transpose_bytes(__m128i* v) {
  __m128i w[16];
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) w[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]), w[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) v[2 * i] = _mm_unpacklo_epi8(w[i], w[i + 8]), v[2 * i + 1] = _mm_unpackhi_epi8(w[i], w[i + 8]);
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) w[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]), w[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) v[2 * i] = _mm_unpacklo_epi8(w[i], w[i + 8]), v[2 * i + 1] = _mm_unpackhi_epi8(w[i], w[i + 8]);
}

// The first `bytes`, a multiple of 4 up to 16; zeros after them.
inline __m128i load_bytes(const uint8_t* x, int64_t bytes) {
  if (bytes >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  alignas(16) uint8_t some[16] = {};
  for (int64_t i = 0; i < bytes; i += 4) __builtin_memcpy(some + i, x + i, 4);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(some));
}

// 32 pixels to all channels' planes; `plane` positions from channel to channel.
void lay_out_pixels(const uint8_t* const* pixels, int64_t channels, int16_t* to, int64_t plane) {
  for (int64_t half = 0; half < 2; ++half, pixels += 16, to += 16) {
    for (int64_t c = 0; c < channels; c += 16) {
      const int64_t left = channels - c, bytes = left >= 16 ? 16 : (left + 3) / 4 * 4;
      __m128i v[16];
      TRITKIT_UNROLL
      for (int i = 0; i < 16; ++i) v[i] = load_bytes(pixels[i] + c, bytes);
      transpose_bytes(v);
      for (int64_t i = 0; i < 16 && i < left; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (c + i) * plane), _mm256_cvtepu8_epi16(v[i]));
      }
    }
  }
}

// --- sums -------------------------------------------------------------------------------------------------------------------

// Adds a chunk's 16-bit sums, times what they stand for, to the 32-bit ones (or to the bias, the first time).
template <bool kTwoSums>
void widen(const BakedTile& tile, const int32_t* bias, const int16_t* chunk, int32_t* sums) {
  for (int64_t o = 0; o < tile.outputs; ++o, sums += kPixels) {
    const I value = Vector::splat(tile.values[static_cast<size_t>(o)]);
    const int16_t* const plus_at = chunk + (kTwoSums ? 2 * o : o) * kPixels;
    for (int64_t p = 0; p < kPixels; p += 2 * kLanes) {
      const I plus = Vector::load(plus_at + p), minus = kTwoSums ? Vector::load(plus_at + kPixels + p) : _mm256_setzero_si256();
      const I low = _mm256_madd_epi16(_mm256_unpacklo_epi16(plus, minus), value);    // pixels 0-3, 8-11
      const I high = _mm256_madd_epi16(_mm256_unpackhi_epi16(plus, minus), value);  // pixels 4-7, 12-15
      const I first = _mm256_permute2x128_si256(low, high, 0x20), second = _mm256_permute2x128_si256(low, high, 0x31);
      const I before_first = bias ? Vector::splat(bias[o]) : Vector::load(sums + p);
      const I before_second = bias ? before_first : Vector::load(sums + p + kLanes);
      Vector::store(sums + p, Vector::add(before_first, first));
      Vector::store(sums + p + kLanes, Vector::add(before_second, second));
    }
  }
}

// 8 outputs, kPixels apart, of 8 pixels to [pixel][output].
void transpose(const int32_t* sums, int32_t* panel, int64_t row) {
  I a[8], b[8];
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) a[i] = Vector::load(sums + i * kPixels);
  TRITKIT_UNROLL
  for (int i = 0; i < 8; i += 4) {
    const I p = _mm256_unpacklo_epi32(a[i], a[i + 1]), q = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    const I r = _mm256_unpacklo_epi32(a[i + 2], a[i + 3]), s = _mm256_unpackhi_epi32(a[i + 2], a[i + 3]);
    b[i] = _mm256_unpacklo_epi64(p, r);  // pixels 0 and 4
    b[i + 1] = _mm256_unpackhi_epi64(p, r);
    b[i + 2] = _mm256_unpacklo_epi64(q, s);
    b[i + 3] = _mm256_unpackhi_epi64(q, s);
  }
  TRITKIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    Vector::store(panel + i * row, _mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
    Vector::store(panel + (i + 4) * row, _mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
  }
}

// A block's sums to [pixel][output], `row` outputs a pixel.
void transpose_block(const int32_t* sums, int64_t outputs, int32_t* panel, int64_t row) {
  for (int64_t o = 0; o < outputs; o += kLanes) {
    for (int64_t p = 0; p < kPixels; p += kLanes) transpose(sums + o * kPixels + p, panel + o + p * row, row);
  }
}

// `count` vectors of words, kPixels apart, to [pixel][word], `row` words a pixel; 8 words of 16 pixels at a time.
void transpose_words(const int16_t* sums, int64_t count, int16_t* panel, int64_t row) {
  for (int64_t o = 0; o < count; o += 8, sums += 8 * kPixels, panel += 8) {
    for (int64_t first = 0; first < kPixels; first += 16) {
      I a[8], b[8];
      TRITKIT_UNROLL
      for (int i = 0; i < 8; ++i) a[i] = Vector::load(sums + i * kPixels + first);
      TRITKIT_UNROLL
      for (int i = 0; i < 8; i += 2) b[i] = _mm256_unpacklo_epi16(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_epi16(a[i], a[i + 1]);
      TRITKIT_UNROLL
      for (int i = 0; i < 2; ++i) {  // pixels 4 i .. 4 i + 3 of a half
        const I p = _mm256_unpacklo_epi32(b[i], b[i + 2]), q = _mm256_unpackhi_epi32(b[i], b[i + 2]);
        const I r = _mm256_unpacklo_epi32(b[i + 4], b[i + 6]), s = _mm256_unpackhi_epi32(b[i + 4], b[i + 6]);
        const I t[4] = {_mm256_unpacklo_epi64(p, r), _mm256_unpackhi_epi64(p, r), _mm256_unpacklo_epi64(q, s), _mm256_unpackhi_epi64(q, s)};
        TRITKIT_UNROLL
        for (int j = 0; j < 4; ++j) {
          int16_t* const to = panel + (first + 4 * i + j) * row;
          _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(t[j]));
          _mm_store_si128(reinterpret_cast<__m128i*>(to + 8 * row), _mm256_extracti128_si256(t[j], 1));
        }
      }
    }
  }
}

#include "kernels/baked/run.h"

}  // namespace
}  // namespace baked_isa_avx2

extern const BakedKernel baked_avx2;
const BakedKernel baked_avx2 = {
    "avx2_baked",          "avx2",
    Emitter256::kHalves,   Emitter256::kSums,
    Emitter256::kAddBytes, Emitter256::kLoadBytes,
    bake<Emitter256>,      baked_isa_avx2::run,
    baked_isa_avx2::scratch_bytes,
};

}  // namespace tritkit
#endif
