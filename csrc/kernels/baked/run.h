// Runs baked convolutions: lays out the pixels of a band, calls the code of every tile, and turns its sums into outputs. Written once:
// an instruction set's file includes this, inside its namespace, after its `Vector`, lay_out_row, widen and transpose_block.

constexpr int64_t kStrip = kLanes * kSums;  // outputs that are finished at once

// What epilogue.h needs of a panel and its pixels.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  alignas(64) float multiplier[kStrip];
};
struct Pixels {
  int64_t y[kPixels], r[kPixels];
};

#include "kernels/conv/epilogue.h"

// One thread's working memory, in this order, each part a multiple of 64 bytes.
struct Scratch {
  int16_t* planes;
  int32_t* sums;   // [kBlocks][kBakedPanel][kPixels], pixels in the order that widen leaves them in
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

using Code = void (*)(const int16_t* x, int16_t* sums);

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
      for (int64_t first = 0; first < kPixels; first += kPixels / kHalves) code(s.planes + s.blocks[b].start + first, s.chunk + first);
      tile.two_sums ? widen<true>(tile, bias, s.chunk, sums) : widen<false>(tile, bias, s.chunk, sums);
    }
    bias = nullptr;
  }
}

void write_block(const BakedWork& work, const Strip& strip, Finish finish, const Block& block, const int32_t* sums, const Scratch& s) {
  const int64_t row = strip.vectors * kLanes;
  transpose_block(sums, strip.outputs, s.panel, row);
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

// The outputs [first, first + outputs) of a panel.
void write_strip(const BakedWork& work, const BakedPanel& panel, int64_t first, int64_t outputs, int32_t blocks, const Scratch& s) {
  Strip strip;
  strip.args = &work.args;
  strip.output = panel.output + first;
  strip.outputs = outputs;
  for (strip.vectors = 1; strip.vectors * kLanes < outputs;) strip.vectors *= 2;
  for (int64_t o = 0; o < kStrip; ++o) strip.multiplier[o] = o < outputs ? work.args.multiplier[strip.output + o] : 0.0f;
  const Finish finish = pick_finish(strip);
  const int32_t* sums = s.sums + first * kPixels;
  for (int32_t b = 0; b < blocks; ++b, sums += kBakedPanel * kPixels) write_block(work, strip, finish, s.blocks[b], sums, s);
}

void run_panel(const BakedWork& work, const BakedPanel& panel, int32_t blocks, const Scratch& s) {
  for (const BakedTile& tile : panel.tiles) run_tile(work, panel, tile, blocks, s);
  for (int64_t first = 0; first < panel.outputs; first += kStrip) {
    const int64_t left = panel.outputs - first;
    write_strip(work, panel, first, left < kStrip ? left : kStrip, blocks, s);
  }
}

size_t scratch_bytes(const BakedGeometry& geometry) {
  const size_t segments = static_cast<size_t>(geometry.max_segments()) * sizeof(Segment);
  return static_cast<size_t>(plane_bytes(geometry) + kSumBytes + kChunkBytes + kPanelBytes + kBlockBytes) + (segments + 63) / 64 * 64;
}

void run(const BakedWork& work) {
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
