// Runs baked convolutions: lays out the pixels of a band, calls the code of every tile, and turns its sums into outputs. Written once:
// an instruction set's file includes this, inside its namespace, after its `Vector`, lay_out_pixels, widen, transpose_block and
// transpose_words.

constexpr int64_t kStrip = kLanes * kSums;  // outputs that are finished at once

// What epilogue.h needs of a panel and its pixels.
struct Strip {
  const ConvArgs* args;
  int64_t output, outputs, vectors;
  alignas(64) float multiplier[kStrip];
  alignas(64) int32_t bias[kStrip], values[kStrip];  // of short sums: acc = sum * value + bias

  Vector::B arrange(Vector::B bytes) const { return Vector::in_order(bytes); }
  template <int OV>
  void load_residual(const uint8_t* r, I* v) const {
    Vector::load_bytes<OV>(r, v, outputs);
  }
};
struct Pixels {
  int64_t y[kPixels], r[kPixels];
};

#include "kernels/conv/epilogue.h"

// Short sums: one word an output, or two, which `values` are pairs of words for.
template <int kWords>
struct ShortSums {
  using Element = int16_t;
  static constexpr int kElements = kWords;
  template <int OV>
  static I load(const Strip& strip, const Element* sums, int v) {
    const I words = kWords == 2 ? Vector::load(sums + v * 2 * kLanes) : Vector::load_words(sums + v * kLanes);
    return Vector::add(Vector::madd(words, Vector::load(strip.values + v % OV * kLanes)), Vector::load(strip.bias + v % OV * kLanes));
  }
};

// One thread's working memory, in this order, each part a multiple of 64 bytes.
struct Scratch {
  int16_t* planes;
  int32_t* sums;   // [kBlocks][kBakedPanel][kPixels], pixels in the order that widen leaves them in; or short ones, see ShortPanel
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

// The pixels at one position of a phase's plane after the other.
class PixelWalk {
 public:
  PixelWalk(const BakedWork& work, const Band& band, int64_t group, int64_t phase)
      : g_(work.geometry), a_(work.args), band_(band), group_(group), phase_(phase), lines_(g_.plane_rows(band)) {
    for (int64_t i = 0; i < kPixels; ++i) steps_[i] = i * g_.column_step() * a_.x_pixel;
    begin_line();
  }

  int64_t positions() const { return (lines_ - 1) * g_.pitch() + g_.last_columns(); }

  // The next kPixels; `pixels` has room for twice as many. Where no tap reads, any pixel.
  void next(const uint8_t** pixels) {
    for (int64_t done = 0; done < kPixels;) {
      if (left_ == 0) next_piece();
      const int64_t all = repeats_ ? 0 : -1;
      for (int64_t i = 0; i < kPixels; ++i) pixels[done + i] = at_ + (steps_[i] & all);
      const int64_t taken = left_ < kPixels - done ? left_ : kPixels - done;
      at_ += repeats_ ? 0 : taken * steps_[1];
      left_ -= taken;
      done += taken;
    }
  }

 private:
  void begin_line() {
    const BakedGeometry::PlaneRow row = g_.plane_row(band_, phase_, line_);
    const int64_t room = line_ + 1 < lines_ ? g_.pitch() : g_.last_columns();
    repeats_ = row.columns == 0;
    left_ = repeats_ || row.columns > room ? room : row.columns;
    unread_ = room - left_;
    at_ = a_.x + group_ * g_.channels() + (repeats_ ? 0 : row.image * a_.x_image + row.row * a_.x_row + row.column * a_.x_pixel);
  }
  void next_piece() {
    if (unread_ == 0 && ++line_ < lines_) return begin_line();
    at_ -= repeats_ ? 0 : steps_[1];  // the last pixel again
    repeats_ = true;
    left_ = unread_ > 0 ? unread_ : kPixels;
    unread_ = 0;
  }

  const BakedGeometry& g_;
  const ConvArgs& a_;
  const Band& band_;
  const int64_t group_, phase_, lines_;
  int64_t line_ = 0, left_ = 0, unread_ = 0;
  bool repeats_ = false;
  const uint8_t* at_ = nullptr;
  int64_t steps_[kPixels];
};

void lay_out(const BakedWork& work, const Band& band, int64_t group, int16_t* planes) {
  const BakedGeometry& g = work.geometry;
  const uint8_t* pixels[2 * kPixels];
  for (int64_t phase = 0; phase < g.phases(); ++phase) {
    PixelWalk walk(work, band, group, phase);
    for (int64_t at = 0; at < walk.positions(); at += kPixels) {
      walk.next(pixels);
      lay_out_pixels(pixels, g.channels(), planes + phase * g.plane() + at, g.phases() * g.plane());
    }
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

// Short sums of a panel: [block][word][kPixels], the words of whole strips.
struct ShortPanel {
  int64_t words, block;  // words an output; int16 from block to block
  explicit ShortPanel(const BakedPanel& panel)
      : words(panel.tiles[0].two_sums ? 2 : 1), block((panel.outputs + kStripStep - 1) / kStripStep * kStripStep * words * kPixels) {}
  static constexpr int64_t kStripStep = 16;
};

// Chunk after chunk goes on with the sums where they lie.
void run_short_tile(const BakedWork& work, const BakedPanel& panel, const BakedTile& tile, int32_t blocks, const Scratch& s) {
  const ShortPanel layout(panel);
  for (const size_t offset : tile.chunks) {
    const uint8_t* const at = work.code + offset;
    const Code code = reinterpret_cast<Code>(reinterpret_cast<uintptr_t>(at));
    int16_t* sums = reinterpret_cast<int16_t*>(s.sums) + (tile.output - panel.output) * layout.words * kPixels;
    for (int32_t b = 0; b < blocks; ++b, sums += layout.block) {
      prefetch(at + kBakedChunk, b, blocks);
      for (int64_t first = 0; first < kPixels; first += kPixels / kHalves) code(s.planes + s.blocks[b].start + first, sums + first);
    }
  }
}

// Writes a block's outputs from its panel of [pixel][output], `row` bytes a pixel.
void write_block(const BakedWork& work, const Strip& strip, Finish finish, const Block& block, int64_t row, const Scratch& s) {
  const ConvArgs& a = work.args;
  const int64_t y_pixel = a.y_pixel, r_pixel = a.r_pixel;
  Pixels pixels;
  for (int32_t i = block.first; i < block.last; ++i) {
    const Segment& g = s.segments[i];
    const int64_t y = g.image * a.y_image + g.row * a.y_row + g.column * a.y_pixel;
    const int64_t r = g.image * a.r_image + g.row * a.r_row + g.column * a.r_pixel;
    for (int64_t p = 0; p < kPixels; ++p) pixels.y[p] = y + p * y_pixel;
    for (int64_t p = 0; p < kPixels; ++p) pixels.r[p] = r + p * r_pixel;
    finish(strip, pixels, g.count, reinterpret_cast<const uint8_t*>(s.panel) + g.lane * row);
  }
}

// The outputs [first, first + outputs) of a panel.
Strip make_strip(const BakedWork& work, const BakedPanel& panel, int64_t first, int64_t outputs) {
  Strip strip;
  strip.args = &work.args;
  strip.output = panel.output + first;
  strip.outputs = outputs;
  for (strip.vectors = 1; strip.vectors * kLanes < outputs;) strip.vectors *= 2;
  for (int64_t o = 0; o < kStrip; ++o) {
    strip.multiplier[o] = o < outputs ? work.args.multiplier[strip.output + o] : 0.0f;
    strip.bias[o] = o < outputs ? work.args.bias[strip.output + o] : 0;
    strip.values[o] = 0;
  }
  for (const BakedTile& tile : panel.tiles) {
    for (int64_t o = 0; o < tile.outputs; ++o) {
      const int64_t at = tile.output + o - strip.output;
      if (at >= 0 && at < outputs) strip.values[at] = tile.values[static_cast<size_t>(o)];
    }
  }
  return strip;
}

void write_strip(const BakedWork& work, const BakedPanel& panel, const Strip& strip, int32_t blocks, const Scratch& s) {
  const int64_t row = strip.vectors * kLanes, first = strip.output - panel.output;
  const Finish finish = pick_finish(strip);
  const int32_t* sums = s.sums + first * kPixels;
  for (int32_t b = 0; b < blocks; ++b, sums += kBakedPanel * kPixels) {
    transpose_block(sums, strip.outputs, s.panel, row);
    write_block(work, strip, finish, s.blocks[b], row * 4, s);
  }
}

void write_short_strip(const BakedWork& work, const BakedPanel& panel, const Strip& strip, int32_t blocks, const Scratch& s) {
  const ShortPanel layout(panel);
  const int64_t row = strip.vectors * kLanes * layout.words, first = strip.output - panel.output;
  const Finish finish = layout.words == 2 ? pick_finish<ShortSums<2>>(strip) : pick_finish<ShortSums<1>>(strip);
  const int16_t* sums = reinterpret_cast<const int16_t*>(s.sums) + first * layout.words * kPixels;
  for (int32_t b = 0; b < blocks; ++b, sums += layout.block) {
    transpose_words(sums, strip.outputs * layout.words, reinterpret_cast<int16_t*>(s.panel), row);
    write_block(work, strip, finish, s.blocks[b], row * 2, s);
  }
}

void run_panel(const BakedWork& work, const BakedPanel& panel, int32_t blocks, const Scratch& s) {
  for (const BakedTile& tile : panel.tiles) panel.short_sums ? run_short_tile(work, panel, tile, blocks, s) : run_tile(work, panel, tile, blocks, s);
  for (int64_t first = 0; first < panel.outputs; first += kStrip) {
    const int64_t left = panel.outputs - first;
    const Strip strip = make_strip(work, panel, first, left < kStrip ? left : kStrip);
    panel.short_sums ? write_short_strip(work, panel, strip, blocks, s) : write_strip(work, panel, strip, blocks, s);
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
