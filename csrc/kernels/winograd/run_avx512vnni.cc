// Runs Winograd convolutions: patches of inputs to 36 places, at each place a matrix product of pairs of words (VNNI), and back.
#if defined(__AVX512VNNI__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/conv/unroll.h"
#include "kernels/winograd/winograd.h"

namespace tritkit {
namespace winograd_isa_avx512vnni {
namespace {

#include "kernels/conv/vector_zmm.h"

using I = Vector::I;
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums;
constexpr int kPatch = kWinogradPatch, kTile = kWinogradTile, kPlaces = kWinogradPlaces, kPixels = kTile * kTile;

// What epilogue.h needs of a panel and its pixels.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  const float* multiplier;

  Vector::B arrange(Vector::B bytes) const { return Vector::in_order(bytes); }
  template <int OV>
  void load_residual(const uint8_t* r, I* v) const { Vector::load_bytes<OV>(r, v, outputs); }
};
struct Pixels {
  int64_t y[kTile], r[kTile];
};

#include "kernels/conv/epilogue.h"

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

struct Tile {
  const uint8_t* x;       // what its first output reads
  int64_t rows, columns;  // of outputs; fewer than 4 where the image or the range ends
  int64_t pixel, y, r;    // the first output, counted over all images, and where it and its residual are
};

// The tiles that cover a range of pixels, row by row and image by image.
class Tiles {
 public:
  Tiles(const ConvArgs& args, const ConvRange& range)
      : a_(args), row_(range.pixel_begin / args.shape.out_w), end_((range.pixel_end - 1) / args.shape.out_w + 1) {}

  int64_t left() const {
    const int64_t across = (a_.shape.out_w + kTile - 1) / kTile;
    int64_t rows = 0;
    for (int64_t row = row_; row < end_; row += height(row)) ++rows;
    return rows * across - column_ / kTile;
  }

  Tile next() {
    const ConvShape& s = a_.shape;
    const int64_t image = row_ / s.out_h, row = row_ % s.out_h;
    const Tile tile{a_.x + image * a_.x_image + row * a_.x_row + column_ * a_.x_pixel, height(row_), least(kTile, s.out_w - column_), row_ * s.out_w + column_,
                    image * a_.y_image + row * a_.y_row + column_ * a_.y_pixel, image * a_.r_image + row * a_.r_row + column_ * a_.r_pixel};
    column_ += kTile;
    if (column_ >= s.out_w) column_ = 0, row_ += tile.rows;
    return tile;
  }

 private:
  int64_t height(int64_t row) const { return least(kTile, least(a_.shape.out_h - row % a_.shape.out_h, end_ - row)); }

  const ConvArgs& a_;
  int64_t row_, end_, column_ = 0;
};

#include "kernels/winograd/transforms.h"

inline I dot(I sum, I x, I w) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));  // as Vector::dot
  return sum;
}

// The products of T tiles and OV vectors of outputs at a place, added over quads of channels to those of the quads before. Asks for the
// 32 OV bytes a quad from `ahead` on, which come from the third cache in deep layers.
template <int OV, int T>
void multiply(const int16_t* words, int64_t pitch, const int16_t* weights, int64_t quads, bool first, const int8_t* ahead, int32_t* products) {
  I acc[T * OV];
  TRITKIT_UNROLL
  for (int i = 0; i < T * OV; ++i) acc[i] = first ? _mm512_setzero_si512() : Vector::load(products + i * kLanes);
  for (int64_t q = 0; q < quads; ++q, words += q % 16 ? 2 : 34) {
    for (int i = 0; i < 32 * OV; i += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead + 32 * OV * q + i), _MM_HINT_T1);
    TRITKIT_UNROLL
    for (int odd = 0; odd < 2; ++odd, weights += 2 * OV * kLanes) {
      I w[OV];
      TRITKIT_UNROLL
      for (int v = 0; v < OV; ++v) w[v] = Vector::load(weights + 2 * v * kLanes);
      TRITKIT_UNROLL
      for (int t = 0; t < T; ++t) {
        int pair;
        __builtin_memcpy(&pair, words + t * pitch + 32 * odd, 4);
        const I x = Vector::splat(pair);
        TRITKIT_UNROLL
        for (int v = 0; v < OV; ++v) acc[t * OV + v] = dot(acc[t * OV + v], x, w[v]);
      }
    }
  }
  TRITKIT_UNROLL
  for (int i = 0; i < T * OV; ++i) Vector::store(products + i * kLanes, acc[i]);
}

constexpr int kTogether = 6;  // tiles: 24 sums, 4 weights, a pair
using Multiply = void (*)(const int16_t*, int64_t, const int16_t*, int64_t, bool, const int8_t*, int32_t*);
template <int OV>
constexpr Multiply kMultiply[kTogether] = {multiply<OV, 1>, multiply<OV, 2>, multiply<OV, 3>, multiply<OV, 4>, multiply<OV, 5>, multiply<OV, 6>};

struct Block {
  const Tile* tiles;
  int64_t count;
  const int16_t* words;  // of their inputs
  int32_t* products;
};

// The products of a block at a place with the weights of a chunk, which begins at the quad `from`. The chunk after it is asked for, by
// each group of tiles one half or the other.
template <int OV>
void multiply_block(const Block& block, const WinogradLayout& layout, int64_t place, const int16_t* weights, int64_t from, int64_t quads, const int8_t* next) {
  const int16_t* const x = block.words + place * layout.input_step(block.count) + 4 * from;
  int32_t* const y = block.products + place * layout.product_step(block.count, OV * kLanes);
  for (int64_t t = 0, groups = (block.count + kTogether - 1) / kTogether; groups > 0; --groups) {
    const int64_t count = (block.count - t + groups - 1) / groups;
    kMultiply<OV>[count - 1](x + t * layout.pitch(), layout.pitch(), weights, quads, from == 0, next + groups % 2 * 32 * OV * quads, y + t * OV * kLanes);
    t += count;
  }
}

// All products of a block with a panel's weights; `chunk` is room for words of them.
template <int OV>
void multiply_panel(const Block& block, const WinogradLayout& layout, const int8_t* weights, int16_t* chunk) {
  for (int64_t place = 0; place < kPlaces; ++place) {
    const int factor = kWinogradFactors[place / kPatch] * kWinogradFactors[place % kPatch];
    for (int64_t from = 0, quads; from < layout.quads; from += quads, weights += quads * OV * 64) {
      quads = least(kWinogradChunk, layout.quads - from);
      widen_weights<OV>(weights, quads, factor, chunk);
      multiply_block<OV>(block, layout, place, chunk, from, quads, weights + quads * OV * 64);
    }
  }
}

// The tile's pixels within the range.
void write_tile(const Strip& strip, Finish finish, const Tile& tile, const ConvRange& range, const int32_t* sums) {
  const ConvArgs& a = *strip.args;
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t pixel = tile.pixel + i * a.shape.out_w, first = most(0, range.pixel_begin - pixel), end = least(tile.columns, range.pixel_end - pixel);
    if (first >= end) continue;
    Pixels pixels;
    for (int64_t j = 0; j < kTile; ++j) {
      pixels.y[j] = tile.y + i * a.y_row + (first + j) * a.y_pixel;
      pixels.r[j] = tile.r + i * a.r_row + (first + j) * a.r_pixel;
    }
    finish(strip, pixels, end - first, sums + (kTile * i + first) * strip.vectors * kLanes);
  }
}

template <int OV>
void write_block(const WinogradWork& work, const Block& block, int64_t panel) {
  constexpr int64_t kRow = OV * kLanes;
  const ConvArgs& a = work.args;
  const int64_t output = 64 * panel;
  const Strip strip{&a, output, least(64, a.shape.out_channels - output), OV, a.multiplier + output};
  const Finish finish = pick_finish(strip);
  alignas(64) int32_t sums[(kPixels + kSums) * kRow];  // whole groups from every pixel on
  for (int64_t t = 0; t < block.count; ++t) {
    for (int v = 0; v < OV; ++v) {
      const I factor = Vector::load(work.factors + output + v * kLanes), bias = Vector::load(a.bias + output + v * kLanes);
      transform_products(block.products + t * kRow + v * kLanes, work.layout.product_step(block.count, kRow), factor, bias, sums + v * kLanes, kRow);
    }
    write_tile(strip, finish, block.tiles[t], work.range, sums);
  }
}

template <int OV>
void run_panel(const WinogradWork& work, const Block& block, int64_t panel, int16_t* chunk) {
  multiply_panel<OV>(block, work.layout, work.weights + panel * work.layout.panel_bytes(64), chunk);
  write_block<OV>(work, block, panel);
}

}  // namespace
}  // namespace winograd_isa_avx512vnni

void run_winograd_avx512vnni(const WinogradWork& work) {
  using namespace winograd_isa_avx512vnni;
  const WinogradLayout& layout = work.layout;
  int16_t* const words = reinterpret_cast<int16_t*>(work.args.scratch);
  int32_t* const products = reinterpret_cast<int32_t*>(words + kPlaces * layout.input_step(layout.tiles));
  int16_t* const chunk = reinterpret_cast<int16_t*>(products + kPlaces * layout.product_step(layout.tiles, layout.outputs));
  Tiles all(work.args, work.range);
  Tile tiles[kWinogradMostTiles];
  for (int64_t left = all.left(), blocks = (left + layout.tiles - 1) / layout.tiles; blocks > 0; --blocks) {
    const int64_t count = (left + blocks - 1) / blocks;
    for (int64_t t = 0; t < count; ++t) {
      tiles[t] = all.next();
      transform_inputs(work.args, tiles[t], words + t * layout.pitch(), layout.input_step(count), layout.pitch());
    }
    for (int64_t p = work.range.panel_begin; p < work.range.panel_end; ++p) {
      const int64_t width = layout.width(work.args.shape.out_channels - 64 * p);
      (width == 64 ? run_panel<4> : width == 32 ? run_panel<2> : run_panel<1>)(work, {tiles, count, words, products}, p, chunk);
    }
    left -= count;
  }
}

}  // namespace tritkit
#endif
