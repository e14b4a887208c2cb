// AMX: tiles of 16 pixels x 64 outputs x 64 inputs. Packed weights are those of AVX-512; ternary ones are decoded ahead, into memory
// near the core, a strip at a time. A few pixels are left to AVX-512, whose weights go from memory to registers.
#if defined(__AMX_INT8__)
#if defined(__GNUC__) && !defined(__clang__)
// The header of GCC 12 starts its undefined vectors from themselves (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/conv/layout.h"
#include "kernels/conv/unroll.h"

namespace tritkit {

extern const ConvKernel conv_avx512vnni;

namespace conv_isa_amx {
namespace {

#include "kernels/conv/vector_zmm.h"

#include "kernels/conv/strip.h"

#include "kernels/conv/epilogue.h"

#include "kernels/conv/amx_tiles.h"

#include "kernels/conv/amx_lines.h"

constexpr int64_t kMaxSteps = 512, kTileBytes = 1024;
constexpr int64_t kMaxParts = 32;                   // of weights decoded at a time
constexpr int64_t kWeightBytes = 512 << 10;         // of them, where that holds a panel
constexpr int64_t kCopyBytes = 256 << 10;           // of the inputs of some pixels
constexpr int64_t kChunk = 128;                     // positions on which all parts run before the next ones
constexpr int64_t kFewPixels = 4, kFewBytes = 16;   // below which AVX-512 is faster

// The steps over the inputs of a pixel, each of `quads` quads. The last of a run begins earlier if it would pass the run's end; what
// it takes again weighs 0.
struct Steps {
  int64_t count, of_run, quads;
  int64_t offset[kMaxSteps];

  explicit Steps(const Runs& runs) {
    of_run = (runs.quads + 15) / 16;
    quads = (runs.quads + of_run - 1) / of_run;
    count = runs.count * of_run;
    for (int64_t run = 0; run < runs.count; ++run) {
      for (int64_t s = 0; s < of_run; ++s) offset[run * of_run + s] = runs.offset[run] + 4 * first_quad(runs, s);
    }
  }
  int64_t first_quad(const Runs& runs, int64_t step) const {
    const int64_t last = runs.quads - quads;
    return step * quads < last ? step * quads : last;
  }
  bool overlap(const Runs& runs) const { return of_run * quads > runs.quads; }
};

// At most so many steps, whatever the strides.
int64_t most_steps(const ConvShape& s) {
  const int64_t quads = (s.in_channels / s.groups + 3) / 4;
  return s.kernel_h * s.kernel_w * ((quads + 15) / 16);
}

// Row `quad` of the weights of 16 outputs, from a block's vectors: lane d of vector t is of output d ^ t and quad d % Ways.
template <int Ways>
I tile_row(const I* w, int quad) {
  if constexpr (Ways == 1) return w[0];
  const __mmask16 second = 0xaaaa;
  if constexpr (Ways == 2) {
    const I other = Vector::exchange<1>(w[1]);
    return quad == 0 ? _mm512_mask_mov_epi32(w[0], second, other) : _mm512_mask_mov_epi32(other, second, w[0]);
  }
  if constexpr (Ways == 4) {
    const I way[4] = {w[0], Vector::exchange<1>(w[1]), Vector::exchange<2>(w[2]), Vector::exchange<1>(Vector::exchange<2>(w[3]))};
    I row = way[quad];
    for (int lane = 1; lane < 4; ++lane) row = _mm512_mask_mov_epi32(row, static_cast<__mmask16>(0x1111 << lane), way[lane ^ quad]);
    return row;
  }
}

// Writes the weights of a strip of V vectors as tiles: [half][step][vector of the half][quad][16 outputs][4].
template <int V, template <int> class Weights>
class TileWriter {
 public:
  TileWriter(const uint8_t* weights, const Runs& runs, const Steps& steps, uint8_t* tiles)
      : runs_(runs), steps_(steps), tiles_(tiles), half_(steps.count * kStep) {
    Weights<1> reader(weights);
    for (int64_t run = 0; run < runs_.count; ++run, tiles_ += steps_.of_run * kStep) {
      if (steps_.overlap(runs_)) clear_last();
      begin_step(0);
      for (int64_t quad = 0; quad < runs_.quads; quad += kBlockQuads) {
        reader.template read<0>(w_);
        put(runs_.quads - quad);
        reader.next();
      }
    }
  }

 private:
  static constexpr int kBlockQuads = 4 / V;
  static constexpr int64_t kStep = (V < 2 ? 1 : 2) * kTileBytes;

  uint8_t* tile(int64_t step, int v) const { return tiles_ + v / 2 * half_ + step * kStep + v % 2 * kTileBytes; }

  void begin_step(int64_t step) {
    step_ = step;
    row_ = step * steps_.quads - steps_.first_quad(runs_, step);
  }

  // The next block of a run, of whose quads `left` are left.
  void put(int64_t left) {
    for (int i = 0; i < kBlockQuads && i < left; ++i, ++row_) {
      if (row_ == steps_.quads) begin_step(step_ + 1);
      TRITKIT_UNROLL
      for (int v = 0; v < V; ++v) Vector::store(tile(step_, v) + row_ * 64, tile_row<kBlockQuads>(w_ + v * kBlockQuads, i));
    }
  }

  void clear_last() {
    const int64_t again = steps_.of_run * steps_.quads - runs_.quads;
    for (int64_t row = 0; row < again; ++row) {
      for (int v = 0; v < V; ++v) Vector::store(tile(steps_.of_run - 1, v) + row * 64, Vector::splat(0));
    }
  }

  const Runs& runs_;
  const Steps& steps_;
  uint8_t* tiles_;
  const int64_t half_;             // bytes
  int64_t step_ = 0, row_ = 0;     // of the next quad
  I w_[kSums];
};

// Up to 32 outputs and their weights.
struct Part {
  Strip strip;
  WeightTiles weights;
  int64_t group_offset;
};

// What all parts need.
struct Work {
  const ConvArgs& args;
  const Grid& grid;
  const LinePlan& plan;
  const Runs& runs;
  const Steps& steps;
  InputTiles inputs;
};

// The parts of some panels.
class Parts {
 public:
  explicit Parts(const Work& work) : work_(work), packed_(static_cast<const uint8_t*>(work.args.packed)) {}

  // Takes panels from `panel` to at most `end`, as many as there is room for; returns the first it did not take.
  int64_t take(int64_t panel, int64_t end) {
    count_ = 0, used_ = 0;
    const int64_t most = work_.steps.count * 4 * kTileBytes;
    for (; panel < end; ++panel) {
      if (count_ > 0 && (count_ + 2 > kMaxParts || used_ + most > kWeightBytes)) break;
      take(panel);
    }
    return panel;
  }
  const Part* begin() const { return parts_; }
  const Part* end() const { return parts_ + count_; }

 private:
  void take(int64_t index) {
    const ConvArgs& a = work_.args;
    const bool ternary = packed_[0] != 0;
    const ConvPanel panel = conv_panel(a.shape, index);
    const uint8_t* weights = packed_ + conv_panel_offset(kVectors, a.shape, ternary, index);
    for (int64_t done = 0; done < panel.outputs;) {
      const int64_t left = panel.outputs - done, vectors = conv_strip_vectors(kVectors, left), room = vectors * kLanes;
      const int64_t outputs = left < room ? left : room;
      take_strip(weights, ternary, vectors);
      for (int64_t first = 0; first < outputs; first += 2 * kLanes) {
        add(panel.first_output + done + first, outputs - first < 2 * kLanes ? outputs - first : 2 * kLanes, vectors < 2 ? 1 : 2, panel);
      }
      weights += conv_strip_bytes(kVectors, a.shape, ternary, vectors);
      done += outputs;
    }
  }

  // Sets next_ to the strip's tiles: where they lie packed, or written to the scratch memory.
  void take_strip(const uint8_t* weights, bool ternary, int64_t vectors) {
    const int64_t quads = work_.steps.quads, step = (vectors < 2 ? 1 : 2) * kTileBytes;
    if (!ternary && vectors == 4 && !work_.steps.overlap(work_.runs)) {
      next_ = {weights, 64, 256, quads * 256}, half_ = 128;
      return;
    }
    uint8_t* const tiles = work_.args.scratch + used_;
    next_ = {tiles, kTileBytes, 64, step}, half_ = work_.steps.count * step;
    used_ += work_.steps.count * vectors * kTileBytes;
    if (vectors == 1) write<1>(weights, ternary, tiles);
    if (vectors == 2) write<2>(weights, ternary, tiles);
    if (vectors == 4) write<4>(weights, ternary, tiles);
  }

  template <int V>
  void write(const uint8_t* weights, bool ternary, uint8_t* tiles) {
    if (ternary) TileWriter<V, TernaryWeights>(weights, work_.runs, work_.steps, tiles);
    if (!ternary) TileWriter<V, Int8Weights>(weights, work_.runs, work_.steps, tiles);
  }

  void add(int64_t output, int64_t outputs, int64_t vectors, const ConvPanel& panel) {
    Part& part = parts_[count_++];
    part.strip.args = &work_.args;
    part.strip.runs = &work_.runs;
    part.strip.vectors = vectors;
    part.strip.output = output;
    part.strip.outputs = outputs;
    fill_strip(work_.args, part.strip);
    part.weights = next_;
    part.group_offset = conv_group_begin(work_.args.shape, panel.group);
    next_.at += half_;
  }

  const Work& work_;
  const uint8_t* const packed_;
  Part parts_[kMaxParts];
  int64_t count_ = 0, used_ = 0, half_ = 0;
  WeightTiles next_ = {};
};

// Up to four tiles of a line's positions [begin, end), with one part.
struct Block {
  const Part* part;
  int64_t row, period;  // as in Line
  int64_t begin, end;
  int64_t start[4];  // the first position of each tile
};

// Turns a block's sums into outputs, some pixels at a time.
class Finisher {
 public:
  explicit Finisher(const Work& work) : grid_(work.grid), pixels_of_tile_(work.plan.tile) {}

  // Where the next block is written while some() and rest() still finish the one before.
  Block& next_block() { return blocks_[1 - now_]; }
  int32_t* sums() { return sums_; }

  // Goes on with that block, whose sums are sums() from now on; it is done after `times` calls of some(), or one of rest().
  void begin(int64_t times) {
    now_ = 1 - now_;
    block_ = &blocks_[now_];
    pitch_ = block_->part->strip.vectors * kLanes;
    finish_ = pick_finish(block_->part->strip);
    next_ = tile_end_ = block_->begin;
    end_ = block_->end;
    tile_ = 0;
    share_ = ((end_ - next_ + times - 1) / times + 3) / 4 * 4;  // finish_ takes up to four at once
    row_ = block_->row + next_ / block_->period, column_ = next_ % block_->period;
    begin_row();
  }
  void some() {
    const int64_t to = next_ + share_;
    advance(to < end_ ? to : end_);
  }
  void rest() { advance(end_); }

 private:
  void advance(int64_t to) {
    while (next_ < to) {
      if (next_ == tile_end_) begin_tile();
      int64_t count = (to < tile_end_ ? to : tile_end_) - next_;
      const int64_t in_row = grid_.columns - column_, left = in_row > 0 ? in_row : block_->period - column_;
      if (left < count) count = left;
      if (in_row > 0) finish(count);
      next_ += count, column_ += count;
      if (column_ < block_->period) continue;
      column_ = 0, ++row_;
      begin_row();
    }
  }

  void begin_tile() {
    const int64_t start = block_->start[tile_], end = start + pixels_of_tile_;
    tile_end_ = end < end_ ? end : end_;
    tile_sums_ = sums_ + (tile_ * 16 - start) * pitch_;
    ++tile_;
  }

  void begin_row() {
    const int64_t image = row_ / grid_.rows, row = row_ - image * grid_.rows;
    y_ = image * grid_.y_image + row * grid_.y_row;
    r_ = image * grid_.r_image + row * grid_.r_row;
  }

  // The next `count` pixels, which are in one row and one tile.
  void finish(int64_t count) {
    constexpr int64_t kMost = 8;
    const int32_t* sums = tile_sums_ + next_ * pitch_;
    int64_t y = y_ + column_ * grid_.y_column, r = r_ + column_ * grid_.r_column;
    for (; count > 0; count -= kMost, sums += kMost * pitch_, y += kMost * grid_.y_column, r += kMost * grid_.r_column) {
      for (int i = 0; i < kMost; ++i) {
        pixels_.y[i] = y + i * grid_.y_column;
        pixels_.r[i] = r + i * grid_.r_column;
      }
      finish_(block_->part->strip, pixels_, count < kMost ? count : kMost, sums);
    }
  }

  const Grid& grid_;
  const int64_t pixels_of_tile_;
  Finish finish_ = nullptr;
  Block blocks_[2] = {};
  int now_ = 0;  // which of them is being finished
  const Block* block_ = blocks_;
  int64_t pitch_ = 0;                       // of a pixel's sums
  int64_t next_ = 0, end_ = 0, share_ = 0;  // positions
  int64_t tile_ = 0, tile_end_ = 0;         // the next tile, and where this one ends
  int64_t row_ = 0, column_ = 0, y_ = 0, r_ = 0;
  const int32_t* tile_sums_ = nullptr;  // those of position 0
  Pixels pixels_;
  alignas(64) int32_t sums_[64 * 16];
};

// Runs parts on lines. Beside the products of a block the block before is finished.
class Runner {
 public:
  explicit Runner(const Work& work) : work_(work), finisher_(work) {}

  void run(const Part& part, const Line& line) {
    part.strip.vectors == 1 ? run_on<1>(part, line) : run_on<2>(part, line);
  }
  void finish() { finisher_.rest(); }  // after the last line, and before the parts go

 private:
  template <int V>
  void run_on(const Part& part, const Line& line) {
    for (int64_t at = line.begin; at < line.end;) {
      Block& block = finisher_.next_block();
      block.part = &part, block.row = line.row, block.period = line.period, block.begin = at;
      int64_t tiles = 0;
      const uint8_t* x[4];
      for (; tiles < 4 / V && at < line.end; ++tiles) {
        const int64_t start = at < line.last ? at : line.last, left = line.end - start;
        block.start[tiles] = start;
        x[tiles] = line.x + part.group_offset + start * work_.inputs.pixel;
        at = start + (left < work_.plan.tile ? left : work_.plan.tile);
      }
      block.end = at;
      multiply<4 / V, V>(part, x, tiles);
    }
  }

  template <int PT, int V>
  void multiply(const Part& part, const uint8_t* const* x, int64_t tiles) {
    if constexpr (PT > 1) {
      if (tiles < PT) return multiply<PT - 1, V>(part, x, tiles);
    }
    TileProduct<PT, V>::run(work_.inputs, part.weights, x, part.strip.bias, finisher_);
    finisher_.rest();
    TileProduct<PT, V>::store(finisher_.sums());
    finisher_.begin(work_.inputs.steps);
  }

  const Work& work_;
  Finisher finisher_;
};

// The lines that hold the output pixels [begin, end), one after the other.
template <class Run>
void for_lines(const Work& work, int64_t begin, int64_t end, const Run& run) {
  const Grid& grid = work.grid;
  const LinePlan& plan = work.plan;
  const int64_t rows = plan.kind == LineKind::image ? grid.rows : 1, pixels = rows * grid.columns;
  while (begin < end) {
    const int64_t index = begin / pixels, from = begin - index * pixels, to = end - index * pixels < pixels ? end - index * pixels : pixels;
    const auto position = [&](int64_t pixel) { return pixel / grid.columns * plan.period + pixel % grid.columns; };
    Line line;
    line.row = index * rows;
    line.x = work.args.x + grid.x(line.row);
    line.period = plan.period;
    line.begin = position(from), line.end = position(to - 1) + 1;
    line.last = plan.length - plan.tile;
    run(line);
    begin += to - from;
  }
}

// All parts on a line, a chunk at a time: what they read and write then stays near.
void run_line(const Parts& parts, Line line, Runner& runner) {
  for (const int64_t end = line.end; line.begin < end; line.begin = line.end) {
    line.end = line.begin + kChunk < end ? line.begin + kChunk : end;
    for (const Part& part : parts) runner.run(part, line);
  }
}

// Copies what the pixels [begin, end) read to `to`, step by step, `pixel` bytes each.
void copy_inputs(const Work& work, int64_t begin, int64_t end, int64_t pixel, uint8_t* to) {
  const Grid& grid = work.grid;
  const Steps& steps = work.steps;
  const __mmask64 bytes = ~0ull >> (64 - 4 * steps.quads);
  for (; begin < end; ++begin, to += pixel) {
    const int64_t row = begin / grid.columns;
    const uint8_t* const x = work.args.x + grid.x(row) + (begin - row * grid.columns) * grid.x_column;
    uint8_t* at = to;
    for (int64_t s = 0; s < steps.count; ++s, at += 4 * steps.quads) {
      _mm512_storeu_si512(at, _mm512_maskz_loadu_epi8(bytes, x + steps.offset[s]));
    }
  }
}

int64_t copied_pixel(const Steps& steps) {
  const int64_t lines = (steps.count * steps.quads + 15) / 16;
  return (lines | 1) * 64;  // an odd number: the rows of a tile lie in different sets of the cache
}

void run_lines(const Work& work, const ConvRange& range) {
  Runner runner(work);
  Parts parts(work);
  for (int64_t panel = range.panel_begin; panel < range.panel_end;) {
    panel = parts.take(panel, range.panel_end);
    for_lines(work, range.pixel_begin, range.pixel_end, [&](const Line& line) { run_line(parts, line, runner); });
    runner.finish();
  }
}

int64_t weight_bytes(const ConvShape& s) {
  const int64_t panel = most_steps(s) * 4 * kTileBytes;
  return panel > kWeightBytes ? panel : kWeightBytes;
}

// As many pixels at a time as the copy holds. One group only: others read other channels.
void run_copied(Work& work, const ConvRange& range) {
  uint8_t* const copy = work.args.scratch + weight_bytes(work.args.shape);
  const int64_t pixel = copied_pixel(work.steps), most = kCopyBytes / pixel / 16 * 16, columns = work.grid.columns;
  int64_t offset[kMaxSteps];
  for (int64_t s = 0; s < work.steps.count; ++s) offset[s] = s * 4 * work.steps.quads;
  work.inputs = {offset, work.steps.count, pixel};
  Runner runner(work);
  Parts parts(work);
  for (int64_t begin = range.pixel_begin; begin < range.pixel_end; begin += most) {
    const int64_t end = begin + most < range.pixel_end ? begin + most : range.pixel_end;
    copy_inputs(work, begin, end, pixel, copy);
    Line line;
    line.row = begin / columns, line.period = columns;
    line.begin = begin - line.row * columns, line.end = line.begin + end - begin;
    line.x = copy - line.begin * pixel;
    line.last = line.end;
    for (int64_t panel = range.panel_begin; panel < range.panel_end;) {
      panel = parts.take(panel, range.panel_end);
      run_line(parts, line, runner);
      runner.finish();
    }
  }
}

void run_amx(const ConvArgs& a, const ConvRange& range) {
  const int64_t pixels = range.pixel_end - range.pixel_begin;
  Runs runs;
  fill_runs(a, 1, runs);  // those of wider strips are the same, unless these are scattered
  if (pixels < kFewPixels || runs.scattered || 4 * runs.quads < kFewBytes) return conv_avx512vnni.run(a, range);
  const Steps steps(runs);
  const Grid grid(a, range.pixel_end);
  const bool may_copy = a.shape.groups == 1 && copied_pixel(steps) * 32 <= kCopyBytes;
  const LinePlan plan(grid, pixels, a.shape.out_channels * (range.panel_end - range.panel_begin) / conv_panels(a.shape), may_copy);
  Work work = {a, grid, plan, runs, steps, {steps.offset, steps.count, grid.x_column}};
  configure_tiles(plan.tile, 4 * steps.quads);
  plan.kind == LineKind::copy ? run_copied(work, range) : run_lines(work, range);
  release_tiles();
}

bool fits_amx(const ConvShape& s, bool ternary) { return fits(s, ternary) && most_steps(s) <= kMaxSteps; }
size_t scratch_bytes(const ConvShape& s) { return static_cast<size_t>(weight_bytes(s) + kCopyBytes + kVectorBytes); }

}  // namespace
}  // namespace conv_isa_amx

extern const ConvKernel conv_amx;
const ConvKernel conv_amx = {
    "amx_16x64",        "amx",
    conv_isa_amx::fits_amx, conv_isa_amx::packed_bytes,
    conv_isa_amx::pack, conv_isa_amx::run_amx,
    conv_panels,        conv_isa_amx::scratch_bytes,
};

}  // namespace tritkit
#endif
