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

#include "kernels/conv/amx_weights.h"

#include "kernels/conv/amx_finish.h"

constexpr int64_t kCopyBytes = 256 << 10;          // of the inputs of some pixels
constexpr int64_t kChunk = 128;                    // positions on which all parts run before the next ones
constexpr int64_t kFewPixels = 4, kFewBytes = 16;  // below which AVX-512 is faster

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
