// The vector convolution, written once: an instruction set's file includes <immintrin.h> and this inside a namespace of its own,
// after the struct `Vector` with its operations (see conv_avx512vnni.cc). It includes nothing and uses no library.
//
// Implicit GEMM: a tile is PX pixels x OV vectors of outputs, sums in registers. Each step loads (and decodes) one block of
// weights and multiplies it with four input channels broadcast from each pixel; pixels are pointers, so a tile
// spans rows and images.

using I = Vector::I;

constexpr int kLanes = Vector::kLanes;
constexpr int kVectorBytes = 4 * kLanes;
constexpr int kMaxPixels = Vector::kSums;  // of the narrowest strip
constexpr int kMaxOutputs = kLanes * Vector::kMaxVectors;

// Where the taps of a pixel are: rows x columns of them, each `blocks` whole blocks and then `tail` quads.
struct Taps {
  int64_t rows, columns, row_step, column_step, blocks, tail;
};

// One strip of outputs and what it needs; arrays are padded with zeros to whole vectors.
struct Strip {
  const ConvArgs* args;
  Taps taps;
  const uint8_t* weights;
  int64_t output, outputs, vectors;  // first output channel, how many
  bool ternary;
  alignas(64) int32_t bias[kMaxOutputs];
  alignas(64) float multiplier[kMaxOutputs];
};

// The pixels of one tile.
struct Pixels {
  const uint8_t* x[kMaxPixels];
  int64_t y[kMaxPixels], r[kMaxPixels];  // byte offsets
};

struct Int8Weights {
  template <int OV>
  struct Reader {
    const uint8_t* at;
    explicit Reader(const uint8_t* weights) : at(weights) {}
    void next(I (&w)[4]) {
      TRITKIT_UNROLL
      for (int f = 0; f < 4; ++f) w[f] = Vector::load(at + f * kVectorBytes);
      at += 4 * kVectorBytes;
    }
  };
};

struct TernaryWeights {
  template <int OV>
  struct Reader {
    const uint8_t* tables;
    const uint8_t* at;
    explicit Reader(const uint8_t* weights) : tables(weights), at(weights + OV * kVectorBytes) {}
    void next(I (&w)[4]) {
      const I codes = Vector::load(at);
      w[0] = Vector::decode<0>(codes, Vector::load(tables));
      w[1] = Vector::decode<2>(codes, Vector::load(tables + 1 % OV * kVectorBytes));
      w[2] = Vector::decode<4>(codes, Vector::load(tables + 2 % OV * kVectorBytes));
      w[3] = Vector::decode<6>(codes, Vector::load(tables + 3 % OV * kVectorBytes));
      at += kVectorBytes;
    }
  };
};

template <int PX, int OV>
struct Sums {
  I v[PX][OV];

  // Quad q of a block at byte `at` of every pixel.
  template <int Q>
  void add(const uint8_t* const* x, int64_t at, const I (&w)[4]) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      const I quad = Vector::broadcast(x[p] + at + 4 * Q);
      TRITKIT_UNROLL
      for (int o = 0; o < OV; ++o) v[p][o] = Vector::dot(v[p][o], quad, w[Q * OV + o]);
    }
  }
};

template <int PX, int OV, class Weights>
void accumulate(const Strip& strip, const uint8_t* const* pixels, int32_t* sums) {
  constexpr int kQuads = 4 / OV;
  const Taps taps = strip.taps;
  const uint8_t* x[PX];
  for (int p = 0; p < PX; ++p) x[p] = pixels[p];
  typename Weights::template Reader<OV> reader(strip.weights);
  Sums<PX, OV> acc;
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) {
    TRITKIT_UNROLL
    for (int o = 0; o < OV; ++o) acc.v[p][o] = Vector::load(strip.bias + o * kLanes);
  }
  for (int64_t row = 0; row < taps.rows; ++row) {
    for (int64_t column = 0; column < taps.columns; ++column) {
      int64_t at = row * taps.row_step + column * taps.column_step;
      I w[4];
      for (int64_t block = 0; block < taps.blocks; ++block, at += 4 * kQuads) {
        reader.next(w);
        acc.template add<0>(x, at, w);
        if constexpr (kQuads > 1) acc.template add<1>(x, at, w);
        if constexpr (kQuads > 2) acc.template add<2>(x, at, w);
        if constexpr (kQuads > 2) acc.template add<3>(x, at, w);
      }
      if (kQuads == 1 || taps.tail == 0) continue;
      reader.next(w);
      acc.template add<0>(x, at, w);
      if constexpr (kQuads > 2) {
        if (taps.tail > 1) acc.template add<1>(x, at, w);
        if (taps.tail > 2) acc.template add<2>(x, at, w);
      }
    }
  }
  TRITKIT_UNROLL
  for (int p = 0; p < PX; ++p) {
    TRITKIT_UNROLL
    for (int o = 0; o < OV; ++o) Vector::store(sums + (p * OV + o) * kLanes, acc.v[p][o]);
  }
}

using Accumulate = void (*)(const Strip&, const uint8_t* const*, int32_t*);

struct Tile {
  int64_t pixels;
  Accumulate int8, ternary;
};

template <int PX, int OV>
constexpr Tile tile() {
  if constexpr (PX * OV <= Vector::kSums) {
    return {PX, accumulate<PX, OV, Int8Weights>, accumulate<PX, OV, TernaryWeights>};
  } else {
    return {0, nullptr, nullptr};
  }
}

// Widest first; a tile with no function is too wide for the registers.
constexpr int kTiles = 10;
template <int OV>
struct Tiles {
  static constexpr Tile list[kTiles] = {tile<24, OV>(), tile<16, OV>(), tile<12, OV>(), tile<8, OV>(), tile<6, OV>(),
                                        tile<5, OV>(),  tile<4, OV>(),  tile<3, OV>(),  tile<2, OV>(), tile<1, OV>()};
};

template <int OV>
const Tile& pick(int64_t pixels) {
  const Tile* tile = Tiles<OV>::list;
  while (tile->pixels == 0 || tile->pixels > pixels) ++tile;
  return *tile;
}

const Tile& pick_tile(int64_t vectors, int64_t pixels) {
  if constexpr (Vector::kMaxVectors == 4) {
    if (vectors == 4) return pick<4>(pixels);
  }
  return vectors == 2 ? pick<2>(pixels) : pick<1>(pixels);
}

#include "kernels/conv/epilogue.h"

// Output pixels one after the other, over rows and images.
struct Cursor {
  const ConvArgs& a;
  int64_t image, row, column;

  Cursor(const ConvArgs& args, int64_t pixel)
      : a(args),
        image(pixel / (a.shape.out_h * a.shape.out_w)),
        row(pixel / a.shape.out_w % a.shape.out_h),
        column(pixel % a.shape.out_w) {}

  void next(const uint8_t** x, int64_t* y, int64_t* r) {
    *x = a.x + image * a.x_image + row * a.shape.stride_h * a.x_row + column * a.shape.stride_w * a.x_pixel;
    *y = image * a.y_image + row * a.y_row + column * a.y_pixel;
    *r = image * a.r_image + row * a.r_row + column * a.r_pixel;
    if (++column < a.shape.out_w) return;
    column = 0;
    if (++row < a.shape.out_h) return;
    row = 0;
    ++image;
  }
};

void run_strip(const Strip& strip, int64_t group_offset, const ConvRange& range) {
  Cursor cursor(*strip.args, range.pixel_begin);
  alignas(64) int32_t sums[Vector::kSums * kLanes];
  Pixels pixels;
  for (int64_t p = range.pixel_begin; p < range.pixel_end;) {
    const Tile& tile = pick_tile(strip.vectors, range.pixel_end - p);
    for (int64_t i = 0; i < tile.pixels; ++i) {
      cursor.next(&pixels.x[i], &pixels.y[i], &pixels.r[i]);
      pixels.x[i] += group_offset;
    }
    (strip.ternary ? tile.ternary : tile.int8)(strip, pixels.x, sums);
    finish(strip, pixels, tile.pixels, sums);
    p += tile.pixels;
  }
}

// Taps that lie one after the other in memory are one longer tap, if their blocks do so too.
Taps make_taps(const ConvArgs& a, int64_t vectors) {
  const ConvShape& s = a.shape;
  const int64_t quads = (s.in_channels / s.groups + 3) / 4, a_block = 4 / vectors;
  Taps t{s.kernel_h, s.kernel_w, s.dilation_h * a.x_row, s.dilation_w * a.x_pixel, quads / a_block, quads % a_block};
  if (t.tail == 0 && t.column_step == 4 * quads) {
    t.blocks *= t.columns;
    t.columns = 1;
  }
  return t;
}

void fill_strip(const ConvArgs& a, Strip& strip) {
  for (int64_t j = 0; j < strip.vectors * kLanes; ++j) {
    const bool real = j < strip.outputs;
    strip.bias[j] = real ? a.bias[strip.output + j] : 0;
    strip.multiplier[j] = real ? a.multiplier[strip.output + j] : 0.0f;
  }
  strip.taps = make_taps(a, strip.vectors);
}

constexpr ConvVectors kVectors = {kLanes, Vector::kMaxVectors};

void run_panel(const ConvArgs& a, const ConvRange& range, int64_t index) {
  const uint8_t* const packed = static_cast<const uint8_t*>(a.packed);
  const ConvPanel panel = conv_panel(a.shape, index);
  Strip strip;
  strip.args = &a;
  strip.ternary = packed[0] != 0;
  strip.weights = packed + conv_panel_offset(kVectors, a.shape, strip.ternary, index);
  for (int64_t done = 0; done < panel.outputs; done += strip.outputs) {
    const int64_t left = panel.outputs - done;
    strip.vectors = conv_strip_vectors(kVectors, left);
    strip.output = panel.first_output + done;
    strip.outputs = left < strip.vectors * kLanes ? left : strip.vectors * kLanes;
    fill_strip(a, strip);
    run_strip(strip, panel.group * (a.shape.in_channels / a.shape.groups), range);
    strip.weights += conv_strip_bytes(kVectors, a.shape, strip.ternary, strip.vectors);
  }
}

void run(const ConvArgs& a, const ConvRange& range) {
  for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) run_panel(a, range, panel);
}

bool fits(const ConvShape& s, bool) { return s.groups == 1 || s.in_channels / s.groups % 4 == 0; }
size_t packed_bytes(const ConvShape& s, bool ternary) { return conv_packed_bytes(kVectors, s, ternary); }
void pack(const ConvShape& s, const ConvWeights& weights, void* packed) { conv_pack(kVectors, s, weights, packed); }
