// Runs gathering convolutions: 14 pixels x 16 outputs, a byte shuffle (VBMI) before each dot product.
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
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums, kPixels = 14, kPanel = kLanes * kSums;
constexpr int kAhead = 8192;  // bytes of rounds that the last panel asks for ahead: they come from the third cache in deep layers

inline I shuffle(I bytes, I index) {
  I result;
  __asm__("vpermb %1, %2, %0" : "=v"(result) : "v"(bytes), "v"(index));  // an intrinsic would need VBMI for the whole file
  return result;
}

// Bytes to the lowest of every dword, zeros above.
inline I spread(I bytes, I index) {
  I result;
  const __mmask64 lowest = 0x1111111111111111;
  __asm__("vpermb %1, %2, %0 %{%3%}%{z%}" : "=v"(result) : "v"(bytes), "v"(index), "Yk"(lowest));
  return result;
}

inline __mmask64 first_bytes(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

// What epilogue.h and cursor.h need of a panel and its pixels. Sums are in the order of the panel's strips; shuffles that are needed
// anyway bring residuals into it and bytes out of it.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  bool sorted;
  alignas(64) float multiplier[kPanel];
  alignas(64) uint8_t place[kPanel];           // of the bytes that Vector::narrow leaves
  alignas(64) uint8_t order[kSums][4 * kLanes];  // of a pixel's residuals, where they are sorted

  Vector::B arrange(Vector::B bytes) const { return shuffle(bytes, Vector::load(place)); }
  template <int OV>
  void load_residual(const uint8_t* r, I* v) const {
    if (!sorted) return Vector::load_bytes<OV>(r, v, outputs);
    const I bytes = _mm512_maskz_loadu_epi8(first_bytes(outputs), r);
    TRITKIT_UNROLL
    for (int i = 0; i < OV; ++i) v[i] = spread(bytes, Vector::load(order[i]));
  }
};
struct Pixels {
  const uint8_t* x[2 * kPixels];
  int64_t y[2 * kPixels], r[2 * kPixels];
};

#include "kernels/conv/cursor.h"
#include "kernels/conv/epilogue.h"

// A step's bytes of one pixel.
inline I bytes_of(const GatherStep& step, const uint8_t* pixel) {
  const I bytes = _mm512_maskz_loadu_epi8(step.mask, pixel + step.offset);
  return step.other_mask ? _mm512_mask_loadu_epi8(bytes, step.other_mask, pixel + step.other) : bytes;
}

// A strip of PX pixels; sums: [pixel][outputs of the panel], `row` of them. Asks for a line of `ahead` a round.
template <int PX>
void accumulate(const GatherWork& work, const GatherStrip& strip, const uint8_t* ahead, const uint8_t* const* pixels, I bias, int32_t* sums, int64_t row) {
  I acc[PX], x[PX];
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) acc[p] = bias;
  const uint8_t* data = work.data + strip.data;
  const GatherStep* const end = work.steps + strip.step + strip.steps;
  for (const GatherStep* step = work.steps + strip.step; step != end; ++step) {
    if (step->mask == ~0ull) {
      const int64_t offset = step->offset;
      TRITKIT_UNROLL
      for (int p = 0; p < PX; ++p) x[p] = _mm512_loadu_si512(pixels[p] + offset);
    } else {
      TRITKIT_UNROLL
      for (int p = 0; p < PX; ++p) x[p] = bytes_of(*step, pixels[p]);
    }
    const uint8_t* const last = data + kGatherRoundBytes * step->rounds;
    for (; data != last; data += kGatherRoundBytes) {
      const I index = Vector::load(data), weights = Vector::load(data + 64);
      if (PX > 4) {  // fewer would only wait for the prefetches
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
        ahead += 64;
      }
      TRITKIT_UNROLL
      for (int p = 0; p < PX; ++p) acc[p] = Vector::dot(acc[p], shuffle(x[p], index), weights);
    }
  }
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) Vector::store(sums + p * row, acc[p]);
}

using Accumulate = void (*)(const GatherWork&, const GatherStrip&, const uint8_t*, const uint8_t* const*, I, int32_t*, int64_t);

constexpr Accumulate kAccumulate[kPixels] = {accumulate<1>, accumulate<2>, accumulate<3>, accumulate<4>,  accumulate<5>,  accumulate<6>,
                                             accumulate<7>, accumulate<8>, accumulate<9>, accumulate<10>, accumulate<11>, accumulate<12>, accumulate<13>, accumulate<14>};

// A panel's way from sums, in the order of its strips, to outputs.
class Writer {
 public:
  Writer(const ConvArgs& args, const GatherPanel& panel) : panel_(panel) {
    strip_.args = &args;
    strip_.output = panel.output;
    strip_.outputs = panel.outputs;
    strip_.vectors = panel.outputs > 2 * kLanes ? 4 : panel.outputs > kLanes ? 2 : 1;
    strip_.sorted = panel.sorted;
    for (int64_t at = 0; at < kPanel; ++at) {
      const bool real = at < panel.outputs;
      strip_.multiplier[at] = real ? args.multiplier[panel.output + panel.order[at]] : 0.0f;
      bias_[at] = real ? args.bias[panel.output + panel.order[at]] : 0;
      strip_.order[at / kLanes][4 * (at % kLanes)] = real ? panel.order[at] : 0;
    }
    const int64_t row = this->row();
    for (int64_t i = 0; i < kPanel; ++i) {  // outputs of the group's pixels, one after the other
      const int64_t o = i % row, from = i - o + (o < panel.outputs ? panel.place[o] : o);
      strip_.place[i] = static_cast<uint8_t>(from % kLanes / 4 * 16 + from / kLanes * 4 + from % 4);
    }
    finish_ = pick_finish(strip_);
  }

  int64_t row() const { return strip_.vectors * kLanes; }  // outputs from one pixel's sums to the next
  I bias(int64_t first) const { return Vector::load(bias_ + first); }

  void write(const Pixels& pixels, int64_t count, const int32_t* sums) const {
    const bool floats = strip_.args->output == ConvOutput::to_float;
    floats && panel_.sorted ? write_floats(pixels, count, sums) : finish_(strip_, pixels, count, sums);
  }

 private:
  void write_floats(const Pixels& pixels, int64_t count, const int32_t* sums) const {
    for (int64_t p = 0; p < count; ++p, sums += row()) {
      uint8_t* const y = static_cast<uint8_t*>(strip_.args->y) + pixels.y[p] + 4 * panel_.output;
      for (int64_t at = 0; at < panel_.outputs; ++at) {
        const float value = static_cast<float>(sums[at]) * strip_.multiplier[at];
        __builtin_memcpy(y + 4 * panel_.order[at], &value, 4);
      }
    }
  }

  const GatherPanel& panel_;
  Strip strip_;
  Finish finish_;
  alignas(64) int32_t bias_[kPanel];
};

}  // namespace
}  // namespace gather_isa_avx512vnni

void run_gather_avx512vnni(const GatherWork& work) {
  using namespace gather_isa_avx512vnni;
  const ConvArgs& a = work.args;
  Writer writer(a, work.panel);
  Cursor<kPixels> cursor(a, work.panel.group * (a.shape.in_channels / a.shape.groups), work.pixel_begin);
  alignas(64) int32_t sums[kPixels * kPanel];
  Pixels pixels;
  const int64_t before = static_cast<int64_t>(work.strips[0].data), all = work.next ? work.next - work.data - before : 0;
  for (int64_t p = work.pixel_begin, tiles = (work.pixel_end - p + kPixels - 1) / kPixels; tiles > 0; --tiles) {
    const int64_t count = (work.pixel_end - p + tiles - 1) / tiles;  // tiles of even width
    cursor.next(pixels, count);
    for (int64_t o = 0; o < work.panel.outputs; o += kLanes) {
      const GatherStrip& strip = work.strips[o / kLanes];
      const int64_t at = static_cast<int64_t>(strip.data), half = (at - before + tiles % 2 * all) / 2;  // of the next panel in turn
      const uint8_t* const ahead = work.next ? work.next + half : work.data + at + kAhead;
      kAccumulate[count - 1](work, strip, ahead, pixels.x, writer.bias(o), sums + o, writer.row());
    }
    writer.write(pixels, count, sums);
    p += count;
  }
}

}  // namespace tritkit
#endif
