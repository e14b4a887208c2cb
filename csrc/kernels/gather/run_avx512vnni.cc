// Runs gathering convolutions: 12 pixels x 16 outputs, a byte shuffle (VBMI) before each dot product.
#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/conv/unroll.h"
#include "kernels/gather/gather.h"

namespace tritkit {
namespace gather_isa_avx512vnni {
namespace {

#include "kernels/conv/vector_zmm.h"

using I = Vector::I;
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums, kPixels = 12, kPanel = kLanes * kSums;

// What epilogue.h and cursor.h need of a panel and its pixels.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  alignas(64) float multiplier[kPanel];
};
struct Pixels {
  const uint8_t* x[kPixels];
  int64_t y[kPixels], r[kPixels];
};

#include "kernels/conv/cursor.h"
#include "kernels/conv/epilogue.h"

inline I shuffle(I bytes, I index) {
  I result;
  __asm__("vpermb %1, %2, %0" : "=v"(result) : "v"(bytes), "v"(index));  // an intrinsic would need VBMI for the whole file
  return result;
}

// 16 outputs of PX pixels; sums: [pixel][outputs of the panel], `row` of them.
template <int PX>
const uint8_t* accumulate(const GatherWork& work, const uint8_t* const* pixels, const uint8_t* rounds, const uint8_t* data, I bias, int32_t* sums,
                          int64_t row) {
  I acc[PX], x[PX];
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) acc[p] = bias;
  for (const GatherWindow& window : work.windows) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) x[p] = _mm512_maskz_loadu_epi8(window.mask, pixels[p] + window.offset);
    const uint8_t* const end = data + 128 * *rounds++;
    for (; data != end; data += 128) {
      const I index = Vector::load(data), weights = Vector::load(data + 64);
      TRITKIT_UNROLL
      for (int p = 0; p < PX; ++p) acc[p] = Vector::dot(acc[p], shuffle(x[p], index), weights);
    }
  }
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) Vector::store(sums + p * row, acc[p]);
  return data;
}

using Accumulate = const uint8_t* (*)(const GatherWork&, const uint8_t* const*, const uint8_t*, const uint8_t*, I, int32_t*, int64_t);

constexpr Accumulate kAccumulate[kPixels] = {accumulate<1>, accumulate<2>, accumulate<3>, accumulate<4>,  accumulate<5>,  accumulate<6>,
                                             accumulate<7>, accumulate<8>, accumulate<9>, accumulate<10>, accumulate<11>, accumulate<12>};

}  // namespace
}  // namespace gather_isa_avx512vnni

void run_gather_avx512vnni(const GatherWork& work) {
  using namespace gather_isa_avx512vnni;
  const ConvArgs& a = work.args;
  const GatherPanel& panel = work.panel;
  Strip strip;
  strip.args = &a;
  strip.output = panel.output;
  strip.outputs = panel.outputs;
  strip.vectors = panel.outputs > 2 * kLanes ? 4 : panel.outputs > kLanes ? 2 : 1;
  alignas(64) int32_t bias[kPanel], sums[kPixels * kPanel];
  for (int64_t o = 0; o < kPanel; ++o) {
    const bool real = o < panel.outputs;
    strip.multiplier[o] = real ? a.multiplier[panel.output + o] : 0.0f;
    bias[o] = real ? a.bias[panel.output + o] : 0;
  }
  const Finish finish = pick_finish(strip);
  const int64_t windows = static_cast<int64_t>(work.windows.size()), row = strip.vectors * kLanes;
  const int64_t group_offset = panel.group * (a.shape.in_channels / a.shape.groups);
  Cursor cursor(a, group_offset, work.pixel_begin);
  Pixels pixels;
  for (int64_t p = work.pixel_begin, tiles = (work.pixel_end - p + kPixels - 1) / kPixels; tiles > 0; --tiles) {
    const int64_t count = (work.pixel_end - p + tiles - 1) / tiles;  // tiles of even width
    cursor.next(pixels, count);
    const uint8_t* data = work.data + panel.data;
    const uint8_t* rounds = panel.rounds.data();
    for (int64_t o = 0; o < panel.outputs; o += kLanes, rounds += windows) {
      data = kAccumulate[count - 1](work, pixels.x, rounds, data, Vector::load(bias + o), sums + o, row);
    }
    finish(strip, pixels, count, sums);
    p += count;
  }
}

}  // namespace tritkit
#endif
