// Depthwise convolution, one input channel an output: channels lie in lanes. Included by an instruction set's file inside its
// namespace, after `Lanes` and `Mix` (see depthwise_avx2.cc). No library here.
//
// A block is kBytes channels. Four taps at a time, their bytes are interleaved until each int32 lane has the four of one channel; in
// vector k of the four that this gives, lane 4 l + i is channel 16 l + 4 k + i. Weights, bias and multipliers are put into that
// order beforehand, and packing sums to bytes undoes it.
//
// Packed: for each block and quad of taps four vectors of int8 weights; taps that are missing weigh 0.

#include "kernels/lanes.h"

constexpr int64_t kChannels = Lanes::kBytes;  // of a block
constexpr int64_t kMaxTaps = 1024;

constexpr int kPixels = 1;
struct Pixels {
  const uint8_t* x[2 * kPixels];
  int64_t y[2 * kPixels], r[2 * kPixels];
};

#include "kernels/conv/cursor.h"

// The channel that is number `at` of a block's four vectors.
inline int64_t channel_at(int64_t at) {
  const int64_t vector = at / Lanes::kWords, lane = at % Lanes::kWords;
  return lane / 4 * 16 + vector * 4 + lane % 4;
}

inline int64_t tap_count(const ConvShape& s) { return s.kernel_h * s.kernel_w; }
inline int64_t tap_quads(const ConvShape& s) { return (tap_count(s) + 3) / 4; }
inline int64_t block_bytes(const ConvShape& s) { return tap_quads(s) * 4 * kChannels; }
inline int64_t blocks(const ConvShape& s) { return (s.in_channels + kChannels - 1) / kChannels; }

// One block: its weights, and which of its channels are written.
struct Block {
  const ConvArgs* args;
  const uint8_t* weights;
  int64_t first, begin, end;  // channels of the whole convolution; written are [begin, end)
  int64_t readable;           // bytes of a pixel from `first`
  int64_t quads, tap[kMaxTaps + 3];
  alignas(64) int32_t bias[kChannels];
  alignas(64) float multiplier[kChannels];
};

template <bool Whole>
void sum_taps(const Block& b, const uint8_t* x, Lanes::I (&sums)[4]) {
  for (int k = 0; k < 4; ++k) sums[k] = Lanes::load_words(reinterpret_cast<const uint8_t*>(b.bias + k * Lanes::kWords));
  const uint8_t* w = b.weights;
  for (const int64_t* tap = b.tap; tap != b.tap + 4 * b.quads; tap += 4, w += 4 * kChannels) {
    Lanes::B taps[4];
    for (int k = 0; k < 4; ++k) taps[k] = Whole ? Lanes::load(x + tap[k]) : Lanes::load_some(x + tap[k], b.readable);
    const Lanes::B low01 = Mix::low_bytes(taps[0], taps[1]), high01 = Mix::high_bytes(taps[0], taps[1]);
    const Lanes::B low23 = Mix::low_bytes(taps[2], taps[3]), high23 = Mix::high_bytes(taps[2], taps[3]);
    sums[0] = Mix::dot(sums[0], Mix::low_words(low01, low23), Lanes::load(w));
    sums[1] = Mix::dot(sums[1], Mix::high_words(low01, low23), Lanes::load(w + kChannels));
    sums[2] = Mix::dot(sums[2], Mix::low_words(high01, high23), Lanes::load(w + 2 * kChannels));
    sums[3] = Mix::dot(sums[3], Mix::high_words(high01, high23), Lanes::load(w + 3 * kChannels));
  }
}

// From sums to one pixel's outputs.
struct Finish {
  const Block& b;
  Rounder to_y, to_v;
  Lanes::I v_zero, r_zero;
  Lanes::F v_scale, r_scale;
  explicit Finish(const Block& block)
      : b(block),
        to_y(block.args->y_zero),
        to_v(block.args->v_zero),
        v_zero(Lanes::splat(block.args->v_zero)),
        r_zero(Lanes::splat(block.args->r_zero)),
        v_scale(Lanes::splat(block.args->v_scale)),
        r_scale(Lanes::splat(block.args->r_scale)) {}

  void operator()(const Lanes::I (&sums)[4], int64_t y, int64_t r) const {
    const ConvArgs& a = *b.args;
    Lanes::F value[4];
    for (int k = 0; k < 4; ++k) value[k] = Lanes::mul(Lanes::to_float(sums[k]), Lanes::load_floats(b.multiplier + k * Lanes::kWords));
    if (a.output == ConvOutput::to_float) return store_floats(value, y);
    Lanes::I codes[4];
    if (a.output == ConvOutput::requantize) {
      for (int k = 0; k < 4; ++k) codes[k] = to_y(value[k]);
    } else {
      add_residual(value, a.r + r, codes);
    }
    store(codes, static_cast<uint8_t*>(a.y) + y);
  }

 private:
  int64_t count() const { return b.end - b.first; }
  bool whole() const { return b.begin == b.first && count() == kChannels; }
  bool quads() const { return b.begin == b.first && count() % 4 == 0; }

  Lanes::B load(const uint8_t* r) const {
    if (whole()) return Lanes::load(r + b.first);
    if (quads()) return Lanes::load_some(r + b.first, count());
    alignas(64) uint8_t some[kChannels] = {};
    for (int64_t c = b.begin; c < b.end; ++c) some[c - b.first] = r[c];
    return Lanes::load(some);
  }

  void add_residual(const Lanes::F (&value)[4], const uint8_t* r, Lanes::I (&codes)[4]) const {
    const Lanes::B bytes = load(r), none = Lanes::splat_code(0);
    const Lanes::B low = Mix::low_bytes(bytes, none), high = Mix::high_bytes(bytes, none);
    const Lanes::I residual[4] = {Mix::low_words(low, none), Mix::high_words(low, none), Mix::low_words(high, none),
                                  Mix::high_words(high, none)};
    for (int k = 0; k < 4; ++k) {
      const Lanes::F left = Lanes::mul(Lanes::to_float(Lanes::sub(to_v(value[k]), v_zero)), v_scale);
      const Lanes::F right = Lanes::mul(Lanes::to_float(Lanes::sub(residual[k], r_zero)), r_scale);
      codes[k] = to_y(Lanes::add(left, right));
    }
  }

  void store(const Lanes::I (&codes)[4], uint8_t* y) const {
    const Lanes::B bytes = Mix::narrow(codes);
    if (whole()) return Lanes::store(y + b.first, bytes);
    if (quads()) return Lanes::store_some(y + b.first, bytes, count());
    alignas(64) uint8_t some[kChannels];
    Lanes::store(some, bytes);
    for (int64_t c = b.begin; c < b.end; ++c) y[c] = some[c - b.first];
  }

  void store_floats(const Lanes::F (&value)[4], int64_t y) const {
    alignas(64) float some[kChannels];
    for (int k = 0; k < 4; ++k) Lanes::store_floats(some + k * Lanes::kWords, value[k], Lanes::kWords);
    for (int64_t at = 0; at < kChannels; ++at) {
      const int64_t c = b.first + channel_at(at);
      if (c >= b.begin && c < b.end) __builtin_memcpy(static_cast<uint8_t*>(b.args->y) + y + 4 * c, some + at, 4);
    }
  }
};

template <bool Whole>
void run_block(const Block& block, int64_t pixel_begin, int64_t pixel_end) {
  const Finish finish(block);
  Cursor<kPixels> cursor(*block.args, block.first, pixel_begin);
  Pixels pixel;
  Lanes::I sums[4];
  for (int64_t p = pixel_begin; p < pixel_end; ++p) {
    cursor.next(pixel, 1);
    sum_taps<Whole>(block, pixel.x[0], sums);
    finish(sums, pixel.y[0], pixel.r[0]);
  }
}

void fill_taps(const ConvArgs& a, Block& block) {
  const ConvShape& s = a.shape;
  block.quads = tap_quads(s);
  for (int64_t t = 0; t < 4 * block.quads; ++t) {
    const bool real = t < tap_count(s);
    block.tap[t] = real ? t / s.kernel_w * s.dilation_h * a.x_row + t % s.kernel_w * s.dilation_w * a.x_pixel : 0;
  }
}

void fill_channels(const ConvArgs& a, Block& block) {
  for (int64_t at = 0; at < kChannels; ++at) {
    const int64_t c = block.first + channel_at(at);
    block.bias[at] = c < a.shape.out_channels ? a.bias[c] : 0;
    block.multiplier[at] = c < a.shape.out_channels ? a.multiplier[c] : 0.0f;
  }
}

// Panels are channels.
void run(const ConvArgs& a, const ConvRange& range) {
  Block block;
  block.args = &a;
  fill_taps(a, block);
  for (int64_t i = range.panel_begin / kChannels; i < blocks(a.shape) && i * kChannels < range.panel_end; ++i) {
    block.first = i * kChannels;
    block.begin = block.first < range.panel_begin ? range.panel_begin : block.first;
    block.end = block.first + kChannels < range.panel_end ? block.first + kChannels : range.panel_end;
    block.readable = (a.shape.in_channels + 3) / 4 * 4 - block.first;
    block.weights = static_cast<const uint8_t*>(a.packed) + i * block_bytes(a.shape);
    fill_channels(a, block);
    if (block.readable >= kChannels) {
      run_block<true>(block, range.pixel_begin, range.pixel_end);
    } else {
      run_block<false>(block, range.pixel_begin, range.pixel_end);
    }
  }
}

bool fits(const ConvShape& s, bool) {
  return s.in_channels >= kLeastChannels && s.groups == s.in_channels && s.groups == s.out_channels && tap_count(s) <= kMaxTaps;
}

size_t packed_bytes(const ConvShape& s, bool) { return static_cast<size_t>(blocks(s) * block_bytes(s)); }

void pack(const ConvShape& s, const ConvWeights& weights, void* packed) {
  uint8_t* const out = static_cast<uint8_t*>(packed);
  __builtin_memset(out, 0, packed_bytes(s, false));
  for (int64_t i = 0; i < blocks(s); ++i) {
    for (int64_t at = 0; at < kChannels; ++at) {
      const int64_t c = i * kChannels + channel_at(at);
      if (c >= s.in_channels) continue;
      for (int64_t t = 0; t < tap_count(s); ++t) {
        const int8_t code = weights.codes[c * tap_count(s) + t];
        const int8_t value = !weights.plus || code == 0 ? code : code > 0 ? weights.plus[c] : weights.minus[c];
        out[i * block_bytes(s) + t / 4 * 4 * kChannels + 4 * at + t % 4] = static_cast<uint8_t>(value);
      }
    }
  }
}

int64_t panels(const ConvShape& s) { return s.groups; }
