// Runs baked convolutions: lays out the pixels of a band, calls the code of every tile, and turns its sums into outputs.
#if defined(__AVX512VNNI__) && defined(__unix__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/baked/baked.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace baked_isa_avx512vnni {
namespace {

#include "kernels/conv/vector_zmm.h"

using I = Vector::I;
constexpr int kLanes = Vector::kLanes, kSums = Vector::kSums;
constexpr int64_t kPixels = BakedGeometry::kLanes;  // of a block

// What epilogue.h needs of a panel and its pixels.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  alignas(64) float multiplier[kBakedPanel];
};
struct Pixels {
  int64_t y[kPixels], r[kPixels];
};

#include "kernels/conv/epilogue.h"

// One thread's working memory, in this order, each part a multiple of 64 bytes.
struct Scratch {
  int16_t* planes;
  int32_t* sums;   // [kBlocks][kBakedPanel][kPixels], pixels in the order of `pixel_of`
  int16_t* chunk;  // [kBakedSums][kPixels]
  int32_t* panel;  // [kPixels][the panel's vectors of outputs]
  Block* blocks;
  Segment* segments;
};

constexpr int64_t kSumBytes = BakedGeometry::kBlocks * kBakedPanel * kPixels * 4, kChunkBytes = kBakedSums * kPixels * 2;
constexpr int64_t kPanelBytes = kPixels * kBakedPanel * 4, kBlockBytes = BakedGeometry::kBlocks * 64;

int64_t plane_bytes(const BakedGeometry& geometry) { return (geometry.elements() * 2 + 63) / 64 * 64; }

Scratch carve(const BakedGeometry& geometry, uint8_t* at) {
  Scratch s;
  s.planes = reinterpret_cast<int16_t*>(at);
  s.sums = reinterpret_cast<int32_t*>(at += plane_bytes(geometry));
  s.chunk = reinterpret_cast<int16_t*>(at += kSumBytes);
  s.panel = reinterpret_cast<int32_t*>(at += kChunkBytes);
  s.blocks = reinterpret_cast<Block*>(at += kPanelBytes);
  s.segments = reinterpret_cast<Segment*>(at += kBlockBytes);
  return s;
}

// --- pixels to planes -------------------------------------------------------------------------------------------------------

// 16 pixels `step` bytes apart, 16 channels: out[q] has channels 4 q .. 4 q + 3 of each pixel. Only `mask`'s dwords are read, and only
// the first `count` pixels (others repeat the last).
inline void load_quads(const uint8_t* x, int64_t step, int64_t count, __mmask8 mask, I* out) {
  I row[4];
  TRITKIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    __m128i part[4];
    TRITKIT_UNROLL
    for (int l = 0; l < 4; ++l) {
      const int64_t pixel = 4 * l + i < count ? 4 * l + i : count - 1;
      part[l] = _mm_maskz_loadu_epi32(mask, x + pixel * step);
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
inline void store_quad(I low, I high, int16_t* to, int64_t plane, int64_t channels, __mmask32 mask) {
  const I bytes = _mm512_set1_epi32(0x00ff00ff);
  const I even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const I odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
  const I low_even = _mm512_and_si512(low, bytes), high_even = _mm512_and_si512(high, bytes);
  const I low_odd = _mm512_and_si512(_mm512_srli_epi32(low, 8), bytes), high_odd = _mm512_and_si512(_mm512_srli_epi32(high, 8), bytes);
  _mm512_mask_storeu_epi16(to, mask, _mm512_permutex2var_epi16(low_even, even, high_even));
  if (channels > 1) _mm512_mask_storeu_epi16(to + plane, mask, _mm512_permutex2var_epi16(low_odd, even, high_odd));
  if (channels > 2) _mm512_mask_storeu_epi16(to + 2 * plane, mask, _mm512_permutex2var_epi16(low_even, odd, high_even));
  if (channels > 3) _mm512_mask_storeu_epi16(to + 3 * plane, mask, _mm512_permutex2var_epi16(low_odd, odd, high_odd));
}

// `columns` pixels of a row to all channels' planes; `plane` positions from channel to channel.
void lay_out_row(const uint8_t* x, int64_t step, int64_t columns, int64_t channels, int16_t* to, int64_t plane) {
  for (int64_t column = 0; column < columns; column += kPixels) {
    const int64_t count = columns - column < kPixels ? columns - column : kPixels;
    const __mmask32 mask = static_cast<__mmask32>((1ull << count) - 1);
    const uint8_t* const pixels = x + column * step;
    for (int64_t c = 0; c < channels; c += 16) {
      const int64_t left = channels - c, quads = left >= 16 ? 4 : (left + 3) / 4;
      const __mmask8 some = static_cast<__mmask8>((1 << quads) - 1);
      I low[4], high[4];
      load_quads(pixels + c, step, count < 16 ? count : 16, some, low);
      load_quads(pixels + c + (count > 16 ? 16 * step : 0), step, count > 16 ? count - 16 : 1, some, high);
      for (int64_t q = 0; q < quads; ++q) {
        store_quad(low[q], high[q], to + (c + 4 * q) * plane + column, plane, left - 4 * q, mask);
      }
    }
  }
}

void lay_out(const BakedWork& work, const Band& band, int64_t group, int16_t* planes) {
  const BakedGeometry& g = work.geometry;
  const ConvArgs& a = work.args;
  const int64_t rows = g.plane_rows(band), step = g.column_step() * a.x_pixel;
  for (int64_t i = 0; i < rows; ++i) {
    const BakedGeometry::PlaneRow row = g.plane_row(band, i);
    const uint8_t* const x = a.x + group * g.channels() + row.image * a.x_image + row.row * a.x_row + row.column * a.x_pixel;
    lay_out_row(x, step, row.columns, g.channels(), planes + row.position, g.phases() * g.plane());
  }
}

// --- sums -------------------------------------------------------------------------------------------------------------------

using Code = void (*)(const int16_t* x, int16_t* sums);

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

// While a chunk runs, the bytes of the next one (they follow it) come from memory to the second cache, a part with each block: the
// CPU's own fetching of code it has not seen waits for every line.
void prefetch(const uint8_t* code, int32_t block, int32_t blocks) {
  const int64_t begin = kBakedChunk * block / blocks / 64, end = kBakedChunk * (block + 1) / blocks / 64;
  for (int64_t line = begin; line < end; ++line) _mm_prefetch(reinterpret_cast<const char*>(code + 64 * line), _MM_HINT_T1);
}

void run_tile(const BakedWork& work, const BakedPanel& panel, const BakedTile& tile, int32_t blocks, const Scratch& s) {
  const int32_t* bias = work.args.bias + tile.output;
  for (const size_t offset : tile.chunks) {
    const uint8_t* const at = work.code + offset;
    const Code code = reinterpret_cast<Code>(reinterpret_cast<uintptr_t>(at));
    int32_t* sums = s.sums + (tile.output - panel.output) * kPixels;
    for (int32_t b = 0; b < blocks; ++b, sums += kBakedPanel * kPixels) {
      prefetch(at + kBakedChunk, b, blocks);
      code(s.planes + s.blocks[b].start, s.chunk);
      tile.two_sums ? widen<true>(tile, bias, s.chunk, sums) : widen<false>(tile, bias, s.chunk, sums);
    }
    bias = nullptr;
  }
}

// --- outputs ----------------------------------------------------------------------------------------------------------------

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

void write_block(const BakedWork& work, const Strip& strip, Finish finish, const Block& block, const int32_t* sums, const Scratch& s) {
  const int64_t row = strip.vectors * kLanes;
  for (int64_t o = 0; o < strip.outputs; o += kLanes) {
    transpose(sums + o * kPixels, s.panel + o, row);
    transpose(sums + o * kPixels + kLanes, s.panel + o + 4 * row, row);
  }
  const ConvArgs& a = work.args;
  Pixels pixels;
  for (int32_t i = block.first; i < block.last; ++i) {
    const Segment& g = s.segments[i];
    const int64_t y = g.image * a.y_image + g.row * a.y_row + g.column * a.y_pixel;
    const int64_t r = g.image * a.r_image + g.row * a.r_row + g.column * a.r_pixel;
    for (int32_t p = 0; p < g.count; ++p) pixels.y[p] = y + p * a.y_pixel, pixels.r[p] = r + p * a.r_pixel;
    finish(strip, pixels, g.count, s.panel + g.lane * row);
  }
}

void run_panel(const BakedWork& work, const BakedPanel& panel, int32_t blocks, const Scratch& s) {
  for (const BakedTile& tile : panel.tiles) run_tile(work, panel, tile, blocks, s);
  Strip strip;
  strip.args = &work.args;
  strip.output = panel.output;
  strip.outputs = panel.outputs;
  strip.vectors = panel.outputs > 2 * kLanes ? 4 : panel.outputs > kLanes ? 2 : 1;
  for (int64_t o = 0; o < kBakedPanel; ++o) strip.multiplier[o] = o < panel.outputs ? work.args.multiplier[panel.output + o] : 0.0f;
  const Finish finish = pick_finish(strip);
  const int32_t* sums = s.sums;
  for (int32_t b = 0; b < blocks; ++b, sums += kBakedPanel * kPixels) write_block(work, strip, finish, s.blocks[b], sums, s);
}

}  // namespace
}  // namespace baked_isa_avx512vnni

size_t baked_scratch_bytes(const BakedGeometry& geometry) {
  using namespace baked_isa_avx512vnni;
  const size_t segments = static_cast<size_t>(geometry.max_segments()) * sizeof(Segment);
  return static_cast<size_t>(plane_bytes(geometry) + kSumBytes + kChunkBytes + kPanelBytes + kBlockBytes) + (segments + 63) / 64 * 64;
}

void run_baked_avx512vnni(const BakedWork& work) {
  using namespace baked_isa_avx512vnni;
  const Scratch scratch = carve(work.geometry, work.scratch);
  prefetch(work.code + work.panels[0].tiles[0].chunks[0], 0, 1);
  for (int64_t row = work.row_begin; row < work.row_end;) {
    const Band band = work.geometry.next_band(row, work.row_end);
    const int32_t blocks = work.geometry.blocks(band, scratch.blocks, scratch.segments);
    int64_t laid_out = -1;  // the group whose pixels are in the planes
    for (int64_t p = 0; p < work.panel_count; ++p) {
      const BakedPanel& panel = work.panels[p];
      if (panel.group != laid_out) lay_out(work, band, panel.group, scratch.planes);
      laid_out = panel.group;
      run_panel(work, panel, blocks, scratch);
    }
    row += band.images * band.rows;
  }
}

}  // namespace tritkit
#endif
