// The vector convolution, written once: an instruction set's file includes this, inside a namespace of its own, after its struct
// `Vector` of operations (see conv_avx512vnni.cc). No header and no library here: nothing may be shared between instruction sets.
//
// Implicit GEMM: a tile is PX pixels x one strip of OV vectors of outputs, all sums in registers; where a strip is narrow, of more
// pixels. A step brings each pixel's next quads to all lanes and multiplies them with the vectors of weights of as many sums. Pixels are pointers, so a tile spans rows and images.

#include "kernels/conv/strip.h"

template <int PX, int OV>
struct Sums {
  static constexpr int S = kSumsOf<OV>, kWays = S / OV;
  I v[PX][S];

  explicit Sums(const Strip& strip) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int s = 0; s < S; ++s) {
        v[p][s] = s % kWays == 0 ? Vector::load(strip.bias + s / kWays * kLanes) : Vector::splat(0);
      }
    }
  }

  Sums() {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int s = 0; s < S; ++s) v[p][s] = Vector::splat(0);
    }
  }

  void add(const Sums& other) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int s = 0; s < S; ++s) v[p][s] = Vector::add(v[p][s], other.v[p][s]);
    }
  }

  void add(int p, I quads, const I* w) {
    TRITKIT_UNROLL
    for (int s = 0; s < S; ++s) v[p][s] = Vector::dot(v[p][s], quads, w[s]);
  }

  // Every pixel's quads at byte `at`.
  void step(const uint8_t* const* x, int64_t at, const I* w) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) add(p, Vector::quads<kWays>(x[p] + at), w);
  }

  // The last quad of a run, where two are taken at a time; the other weighs 0, so it may be anything.
  void last_step(const uint8_t* const* x, int64_t at, const I* w) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) add(p, Vector::quads<1>(x[p] + at), w);
  }

  void store(int32_t* out) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int o = 0; o < OV; ++o) Vector::store(out + (p * OV + o) * kLanes, total(v[p] + o * kWays));
    }
  }

 private:
  static I total(const I* way) {
    if constexpr (kWays == 1) return way[0];
    if constexpr (kWays == 2) return Vector::add(way[0], Vector::exchange(way[1]));
  }
};

template <int PX, int OV, template <int, int> class Weights>
struct Walk {
  static constexpr int S = kSumsOf<OV>, kWays = S / OV, kBlockQuads = 4 / OV;
  const uint8_t* x[PX];
  const uint8_t* ahead;
  Weights<PX, S> weights;
  I w[S];

  Walk(const Strip& strip, const uint8_t* const* pixels) : ahead(strip.ahead), weights(strip.weights) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      x[p] = pixels[p];
      __asm__("" : "+r"(x[p]));  // one by one: a vector load of what was just stored one by one has to wait
    }
  }

  // The block at byte `at` of every pixel.
  template <class AnySums>
  void block(AnySums& sums, int64_t at) {
    if constexpr (!kFewSums<PX, S>) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += kVectorBytes;
    }
    weights.template read<0>(w);
    sums.step(x, at, w);
    if constexpr (S == 2) {
      weights.template read<1>(w);
      sums.step(x, at + 4 * kWays, w);
    }
    weights.next();
  }

  // The last block of a run, of `quads` < kBlockQuads.
  template <class AnySums>
  void last_block(AnySums& sums, int64_t at, int64_t quads) {
    weights.template read<0>(w);
    if (quads < kWays) sums.last_step(x, at, w);
    if (quads >= kWays) sums.step(x, at, w);
    if constexpr (S == 2) {
      weights.template read<1>(w);
      if (quads > kWays) sums.last_step(x, at + 4 * kWays, w);
    }
    weights.next();
  }
};

template <int PX, int OV, template <int, int> class Weights>
void accumulate(const Strip& strip, const uint8_t* const* pixels, int32_t* out) {
  constexpr int kBlockQuads = 4 / OV;
  constexpr bool kTwoChains = kFewSums<PX, kSumsOf<OV>>;  // which would wait for each other
  const Runs& runs = *strip.runs;
  Walk<PX, OV, Weights> walk(strip, pixels);
  Sums<PX, OV> sums(strip), others;
  const int64_t* const end = runs.offset + runs.count;
  for (const int64_t* run = runs.offset; run != end; ++run) {
    int64_t at = *run, left = runs.quads;
    for (; kTwoChains && left >= 2 * kBlockQuads; left -= 2 * kBlockQuads, at += 8 * kBlockQuads) {
      walk.block(sums, at);
      walk.block(others, at + 4 * kBlockQuads);
    }
    for (; left >= kBlockQuads; left -= kBlockQuads, at += 4 * kBlockQuads) walk.block(sums, at);
    if (left > 0) walk.last_block(sums, at, left);
  }
  if (kTwoChains) sums.add(others);
  sums.store(out);
}

#include "kernels/conv/words.h"

// One pixel of scattered runs: slow, for inputs whose pixels lie apart while their channels do not fill blocks. Each block's
// quads are gathered first, zeros after the last.
template <int OV, template <int, int> class Weights, bool Words>
void accumulate_scattered(const Strip& strip, const uint8_t* const* pixels, int32_t* out) {
  constexpr int kBlockQuads = 4 / OV;
  const Runs& runs = *strip.runs;
  alignas(16) uint8_t gathered[4 * kBlockQuads];
  const uint8_t* const block[1] = {gathered};
  Walk<1, OV, Weights> walk(strip, block);
  Sums<1, OV> sums(strip);
  for (int64_t run = 0; run < runs.count; ++run) {
    for (int64_t first = 0; first < runs.quads; first += kBlockQuads) {
      for (int64_t i = first; i < first + kBlockQuads; ++i) {
        const int64_t at = runs.offset[run] + i / runs.tap_quads * runs.tap_step + i % runs.tap_quads * 4;
        uint8_t* const quad = gathered + 4 * (i - first);
        if (i < runs.quads) __builtin_memcpy(quad, pixels[0] + at, 4);
        if (i >= runs.quads) __builtin_memset(quad, 0, 4);
      }
      __asm__ volatile("" ::: "memory");  // the loads go through assembly-opaque pointers
      add_block<Vector, Words>(walk, sums, strip.units);
    }
  }
  sums.store(out);
}

using Accumulate = void (*)(const Strip&, const uint8_t* const*, int32_t*);

template <int PX, int OV, template <int, int> class Weights>
Accumulate pick_sums(bool words) {
  if constexpr (Vector::kWords) {
    if (words) return accumulate_words<PX, OV, Weights>;
  }
  return accumulate<PX, OV, Weights>;
}

template <int PX, int OV, template <int, int> class Weights>
Accumulate pick_width(int64_t pixels, bool words) {
  if constexpr (PX > 1) {
    if (pixels < PX) return pick_width<PX - 1, OV, Weights>(pixels, words);
  }
  return pick_sums<PX, OV, Weights>(words);
}

template <int OV, template <int, int> class Weights>
Accumulate pick_tile(const Strip& strip, int64_t pixels) {
  const bool words = strip.word_blocks > 0;
  if (!strip.runs->scattered) return pick_width<kPixelsOf<OV>, OV, Weights>(pixels, words);
  return words ? accumulate_scattered<OV, Weights, Vector::kWords> : accumulate_scattered<OV, Weights, false>;
}

// The function for a tile of `pixels`.
template <int OV>
Accumulate pick_tile(const Strip& strip, int64_t pixels) {
  return strip.ternary ? pick_tile<OV, TernaryWeights>(strip, pixels) : pick_tile<OV, Int8Weights>(strip, pixels);
}

#include "kernels/conv/cursor.h"
#include "kernels/conv/epilogue.h"

// `bytes` of weights: a strip's, and the next one's if there is one. These are asked for by each tile, a line a block: all of them where
// weights have 2 bits, a fourth part in turn where they are bytes. They come from the third cache in deep layers.
template <int OV>
void run_strip_of(Strip& strip, int64_t bytes, int64_t group_offset, const ConvRange& range) {
  const uint8_t* const next = strip.ahead;
  const int64_t part = strip.ternary ? 0 : bytes / 4;
  const int64_t widest = strip.runs->scattered ? 1 : kPixelsOf<OV>;
  const Finish finish = pick_finish(strip);
  Accumulate accumulate_tile = pick_tile<OV>(strip, widest);
  Cursor<kPixelsOf<OV>> cursor(*strip.args, group_offset, range.pixel_begin);
  alignas(64) int32_t sums[kPixels * kSums * kLanes];
  Pixels pixels;
  for (int64_t p = range.pixel_begin, tile = 0; p < range.pixel_end;) {
    const int64_t left = range.pixel_end - p, count = left < widest ? left : widest;
    if (count < widest) accumulate_tile = pick_tile<OV>(strip, count);
    cursor.next(pixels, count);
    strip.ahead = next + tile++ % 4 * part;
    accumulate_tile(strip, pixels.x, sums);
    finish(strip, pixels, count, sums);
    p += count;
  }
}

void run_strip(Strip& strip, int64_t bytes, int64_t group_offset, const ConvRange& range) {
  if (strip.vectors == 1) return run_strip_of<1>(strip, bytes, group_offset, range);
  strip.vectors == 2 ? run_strip_of<2>(strip, bytes, group_offset, range) : run_strip_of<kSums>(strip, bytes, group_offset, range);
}

// Strips over many pixels are decoded once, into memory near the core, where their tiles are too small to hide the decoding.
constexpr int64_t kDecodedPixels = 8 * kPixels;

template <int S>
void decode_ahead(Strip& strip, int64_t blocks, uint8_t* decoded) {
  TernaryWeights<1, S> weights(strip.weights);
  I w[S];
  uint8_t* to = decoded;
  for (int64_t block = 0; block < blocks; ++block, weights.next()) {
    weights.template read<0>(w);
    for (int s = 0; s < S; ++s, to += kVectorBytes) Vector::store(to, w[s]);
    if constexpr (S == 2) {
      weights.template read<1>(w);
      for (int s = 0; s < S; ++s, to += kVectorBytes) Vector::store(to, w[s]);
    }
  }
  strip.weights = decoded;
  strip.ternary = false;
}

void run_panel(const ConvArgs& a, const ConvRange& range, int64_t index) {
  const uint8_t* const packed = static_cast<const uint8_t*>(a.packed);
  const ConvPanel panel = conv_panel(a.shape, index);
  const bool ternary = packed[0] != 0, many = range.pixel_end - range.pixel_begin >= kDecodedPixels;
  const uint8_t* weights = packed + conv_panel_offset(kVectors, a.shape, ternary, index);
  alignas(64) uint8_t decoded[Vector::kDecodedBytes];
  Runs runs;
  Strip strip;
  strip.args = &a;
  strip.runs = &runs;
  for (int64_t done = 0; done < panel.outputs; done += strip.outputs) {
    const int64_t left = panel.outputs - done;
    strip.vectors = conv_strip_vectors(kVectors, left);
    strip.output = panel.first_output + done;
    strip.outputs = left < strip.vectors * kLanes ? left : strip.vectors * kLanes;
    strip.weights = weights;
    strip.ternary = ternary;
    fill_runs(a, strip.vectors, runs);
    fill_strip(a, strip);
    fill_units(strip);
    const int64_t bytes = conv_strip_bytes(kVectors, a.shape, ternary, strip.vectors);
    const int64_t blocks = bytes / kVectorBytes - conv_strip_sums(strip.vectors);
    if (ternary && many && 4 * blocks * kVectorBytes <= Vector::kDecodedBytes) {
      strip.vectors > 2 ? decode_ahead<kSums>(strip, blocks, decoded) : decode_ahead<2>(strip, blocks, decoded);
    }
    const bool last = done + strip.outputs == panel.outputs && index + 1 == range.panel_end;
    strip.ahead = weights + (last ? 0 : bytes);
    run_strip(strip, bytes, conv_group_begin(a.shape, panel.group), range);
    weights += bytes;
  }
}

void run(const ConvArgs& a, const ConvRange& range) {
  for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) run_panel(a, range, panel);
}
