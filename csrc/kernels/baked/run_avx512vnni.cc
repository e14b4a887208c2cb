// Runs baked convolutions: lays out the pixels of a band, calls the code of every tile, and turns its sums into outputs.
#if defined(__AVX512VNNI__) && defined(__unix__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/baked/baked.h"
#include "kernels/baked/emitter.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace baked_isa_avx512vnni {
namespace {

#include "kernels/conv/vector_zmm.h"

using I = Vector::I;
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums;
constexpr int64_t kPixels = BakedGeometry::kLanes;  // of a block
constexpr int kHalves = Emitter512::kHalves;

// --- pixels to planes -------------------------------------------------------------------------------------------------------

// 16 channels of 16 pixels, from byte `at` of each: out[q] has channels 4 q .. 4 q + 3 of each pixel. Unless `All`, only `mask`'s dwords
// are read.
template <bool All>
inline void load_quads(const uint8_t* const* pixels, int64_t at, __mmask8 mask, I* out) {
  I row[4];
  TRITKIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    __m128i part[4];
    TRITKIT_UNROLL
    for (int l = 0; l < 4; ++l) {
      const uint8_t* const x = pixels[4 * l + i] + at;
      part[l] = All ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(x)) : _mm_maskz_loadu_epi32(mask, x);
    }
    row[i] = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(part[0]), part[1], 1), part[2], 2), part[3], 3);
  }
  const I a = _mm512_unpacklo_epi32(row[0], row[1]), b = _mm512_unpackhi_epi32(row[0], row[1]);
  const I c = _mm512_unpacklo_epi32(row[2], row[3]), d = _mm512_unpackhi_epi32(row[2], row[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

// 32 pixels of one quad of channels to four planes `plane` positions apart.
inline void store_quad(I low, I high, int16_t* to, int64_t plane, int64_t channels) {
  const I bytes = _mm512_set1_epi32(0x00ff00ff);
  const I even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const I odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
  const I low_even = _mm512_and_si512(low, bytes), high_even = _mm512_and_si512(high, bytes);
  const I low_odd = _mm512_and_si512(_mm512_srli_epi32(low, 8), bytes), high_odd = _mm512_and_si512(_mm512_srli_epi32(high, 8), bytes);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low_even, even, high_even));
  if (channels > 1) _mm512_storeu_si512(to + plane, _mm512_permutex2var_epi16(low_odd, even, high_odd));
  if (channels > 2) _mm512_storeu_si512(to + 2 * plane, _mm512_permutex2var_epi16(low_even, odd, high_even));
  if (channels > 3) _mm512_storeu_si512(to + 3 * plane, _mm512_permutex2var_epi16(low_odd, odd, high_odd));
}

// 32 pixels to all channels' planes; `plane` positions from channel to channel. Inlined, the 32 pointers would be kept in other places
// than where they lie.
__attribute__((noinline)) void lay_out_pixels(const uint8_t* const* pixels, int64_t channels, int16_t* to, int64_t plane) {
  I low[4], high[4];
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) {
    __asm__ volatile("" ::: "memory");
    load_quads<true>(pixels, c, 0, low);
    load_quads<true>(pixels + 16, c, 0, high);
    TRITKIT_UNROLL
    for (int q = 0; q < 4; ++q) store_quad(low[q], high[q], to + (c + 4 * q) * plane, plane, 4);
  }
  if (c == channels) return;
  const int64_t left = channels - c, quads = (left + 3) / 4;
  const __mmask8 some = static_cast<__mmask8>((1 << quads) - 1);
  load_quads<false>(pixels, c, some, low);
  load_quads<false>(pixels + 16, c, some, high);
  for (int64_t q = 0; q < quads; ++q) store_quad(low[q], high[q], to + (c + 4 * q) * plane, plane, left - 4 * q);
}

// --- sums -------------------------------------------------------------------------------------------------------------------

// Adds a chunk's 16-bit sums, times what they stand for, to the 32-bit ones (or to the bias, the first time). The order of pixels:
// the first vector has 0-3, 8-11, 16-19, 24-27, the second the others.
template <bool kTwoSums>
void widen(const BakedTile& tile, const int32_t* bias, const int16_t* chunk, int32_t* sums) {
  for (int64_t o = 0; o < tile.outputs; ++o, sums += kPixels) {
    const I plus = Vector::load(chunk + (kTwoSums ? 2 * o : o) * kPixels);
    const I minus = kTwoSums ? Vector::load(chunk + (2 * o + 1) * kPixels) : _mm512_setzero_si512();
    const I value = Vector::splat(tile.values[static_cast<size_t>(o)]);
    const I low = _mm512_madd_epi16(_mm512_unpacklo_epi16(plus, minus), value);
    const I high = _mm512_madd_epi16(_mm512_unpackhi_epi16(plus, minus), value);
    const I before_low = bias ? Vector::splat(bias[o]) : Vector::load(sums);
    const I before_high = bias ? before_low : Vector::load(sums + kLanes);
    Vector::store(sums, Vector::add(before_low, low));
    Vector::store(sums + kLanes, Vector::add(before_high, high));
  }
}

// sums: 16 outputs, kPixels apart, of 16 pixels; panel: the same, [pixel][output] with `row` outputs a pixel, and pixel 8 l + i from
// lane 4 l + i.
void transpose(const int32_t* sums, int32_t* panel, int64_t row) {
  I a[16], b[16];
  TRITKIT_UNROLL
  for (int i = 0; i < 16; ++i) a[i] = Vector::load(sums + i * kPixels);
  TRITKIT_UNROLL
  for (int i = 0; i < 16; i += 4) {
    const I p = _mm512_unpacklo_epi32(a[i], a[i + 1]), q = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    const I r = _mm512_unpacklo_epi32(a[i + 2], a[i + 3]), s = _mm512_unpackhi_epi32(a[i + 2], a[i + 3]);
    b[i] = _mm512_unpacklo_epi64(p, r);  // lane l: outputs i .. i + 3 of the pixel in dword 4 l
    b[i + 1] = _mm512_unpackhi_epi64(p, r);
    b[i + 2] = _mm512_unpacklo_epi64(q, s);
    b[i + 3] = _mm512_unpackhi_epi64(q, s);
  }
  TRITKIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const I even_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
    const I even_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88), odd_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    Vector::store(panel + (0 + i) * row, _mm512_shuffle_i32x4(even_low, even_high, 0x88));
    Vector::store(panel + (8 + i) * row, _mm512_shuffle_i32x4(odd_low, odd_high, 0x88));
    Vector::store(panel + (16 + i) * row, _mm512_shuffle_i32x4(even_low, even_high, 0xdd));
    Vector::store(panel + (24 + i) * row, _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd));
  }
}

// A block's sums to [pixel][output], `row` outputs a pixel.
void transpose_block(const int32_t* sums, int64_t outputs, int32_t* panel, int64_t row) {
  for (int64_t o = 0; o < outputs; o += kLanes) {
    transpose(sums + o * kPixels, panel + o, row);
    transpose(sums + o * kPixels + kLanes, panel + o + 4 * row, row);
  }
}

// 8 vectors of words to 8 of as many pixels: quarter l of t[j] has the words of pixel 8 l + j.
inline void transpose_quarters(const int16_t* sums, I* t) {
  I a[8], b[8];
  TRITKIT_UNROLL
  for (int i = 0; i < 8; ++i) a[i] = Vector::load(sums + i * kPixels);
  TRITKIT_UNROLL
  for (int i = 0; i < 8; i += 2) b[i] = _mm512_unpacklo_epi16(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi16(a[i], a[i + 1]);
  TRITKIT_UNROLL
  for (int i = 0; i < 2; ++i) {  // pixels 4 i .. 4 i + 3 of a quarter
    const I p = _mm512_unpacklo_epi32(b[i], b[i + 2]), q = _mm512_unpackhi_epi32(b[i], b[i + 2]);
    const I r = _mm512_unpacklo_epi32(b[i + 4], b[i + 6]), s = _mm512_unpackhi_epi32(b[i + 4], b[i + 6]);
    t[4 * i] = _mm512_unpacklo_epi64(p, r);
    t[4 * i + 1] = _mm512_unpackhi_epi64(p, r);
    t[4 * i + 2] = _mm512_unpacklo_epi64(q, s);
    t[4 * i + 3] = _mm512_unpackhi_epi64(q, s);
  }
}

// `count` vectors of words, kPixels apart, to [pixel][word], `row` words a pixel.
void transpose_words(const int16_t* sums, int64_t count, int16_t* panel, int64_t row) {
  const I first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  for (int64_t o = 0; o < count; o += 16, sums += 16 * kPixels, panel += 16) {
    I low[8], high[8];
    transpose_quarters(sums, low);
    transpose_quarters(sums + 8 * kPixels, high);
    TRITKIT_UNROLL
    for (int j = 0; j < 8; ++j) {
      const I near = _mm512_permutex2var_epi64(low[j], first, high[j]), far = _mm512_permutex2var_epi64(low[j], second, high[j]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(panel + j * row), _mm512_castsi512_si256(near));
      _mm256_store_si256(reinterpret_cast<__m256i*>(panel + (8 + j) * row), _mm512_extracti64x4_epi64(near, 1));
      _mm256_store_si256(reinterpret_cast<__m256i*>(panel + (16 + j) * row), _mm512_castsi512_si256(far));
      _mm256_store_si256(reinterpret_cast<__m256i*>(panel + (24 + j) * row), _mm512_extracti64x4_epi64(far, 1));
    }
  }
}

#include "kernels/baked/run.h"

}  // namespace
}  // namespace baked_isa_avx512vnni

extern const BakedKernel baked_avx512vnni;
const BakedKernel baked_avx512vnni = {
    "avx512_baked",         "avx512vnni",
    Emitter512::kHalves,    Emitter512::kSums,
    Emitter512::kAddBytes,  Emitter512::kLoadBytes,
    bake<Emitter512>,       baked_isa_avx512vnni::run,
    baked_isa_avx512vnni::scratch_bytes,
};

}  // namespace tritkit
#endif
