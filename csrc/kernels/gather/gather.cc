#include "kernels/gather/gather.h"

#include <algorithm>
#include <cstring>

#include "base/cpu.h"
#include "kernels/conv/layout.h"

namespace tritkit {
namespace {

// A round costs a shuffle and a product where the dense kernel has a product: measured, 1.6 times as much. Rounds for 64 inputs of
// 16 outputs, for which dense kernels have 16 products, above which nothing is gained.
constexpr double kGainingRounds = 10;
constexpr int64_t kFewestRounds = 2, kMostRounds = 8;  // of a step
// Measured, of a pixel: a round; loading the bytes of a step from one place, and from two.
constexpr double kRoundCycles = 0.76, kOnePlace = 0.8, kTwoPlaces = 1.6;
// Where all steps have as many rounds, their loops end as predicted; otherwise only after some tiles.
constexpr int64_t kSteadyRounds = 3, kSteadyPixels = 128;
constexpr int64_t kSortedInputs = 192;  // of an output, from which on it pays to sort

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

uint64_t first_bytes(int64_t count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// The bytes that an output sums: runs that are whole in memory, one after the other.
struct Line {
  int64_t runs, columns, run_bytes, tap_bytes, channels, kernel_w;
  int64_t row_step, column_step;

  explicit Line(const ConvArgs& a) {
    const ConvShape& s = a.shape;
    channels = s.in_channels / s.groups, tap_bytes = 4 * up(channels, 4), kernel_w = s.kernel_w;
    const bool joined = conv_runs(s).columns == 1 && a.x_pixel == tap_bytes;  // the taps of a row follow one another
    columns = joined ? 1 : s.kernel_w, run_bytes = joined ? s.kernel_w * tap_bytes : tap_bytes, runs = s.kernel_h * columns;
    row_step = s.dilation_h * a.x_row, column_step = s.dilation_w * a.x_pixel;
  }
  int64_t bytes() const { return runs * run_bytes; }
  int64_t offset(int64_t run) const { return run / columns * row_step + run % columns * column_step; }
  // Which of an output's weights the byte meets; -1: none.
  int64_t weight(int64_t byte) const {
    const int64_t run = byte / run_bytes, tap = run / columns * kernel_w + run % columns + byte % run_bytes / tap_bytes;
    const int64_t channel = byte % tap_bytes;
    return channel < channels ? tap * channels + channel : -1;
  }
};

// A step's part of the line, [begin, begin + size) of it; these are the first bytes of the step's 64.
struct Window {
  int64_t begin, size;
  GatherStep step;
};

// From `first` on: 64 bytes where the line has them in at most two pieces.
Window window_at(const Line& line, int64_t first) {
  const int64_t run = first / line.run_bytes, at = first % line.run_bytes, left = line.run_bytes - at;
  if (left >= kGatherWindow) return {first, kGatherWindow, {line.offset(run) + at, 0, ~uint64_t{0}, 0, 0}};
  if (run + 1 == line.runs) {
    const int64_t size = std::min(line.run_bytes, kGatherWindow), back = line.run_bytes - size;
    return {run * line.run_bytes + back, size, {line.offset(run) + back, 0, first_bytes(size), 0, 0}};
  }
  const int64_t more = std::min(kGatherWindow - left, line.run_bytes);
  return {first, left + more, {line.offset(run) + at, line.offset(run + 1) - left, first_bytes(left), first_bytes(left + more) & ~first_bytes(left), 0}};
}

}  // namespace

class GatherPacker {
 public:
  GatherPacker(const ConvArgs& args, const ConvWeights& weights) : shape_(args.shape), line_(args), weights_(weights) {
    for (int64_t byte = 0; byte < line_.bytes(); ++byte) {
      const int64_t weight = line_.weight(byte);
      if (weight >= 0) places_.push_back({static_cast<int32_t>(byte), static_cast<int32_t>(weight)});
    }
    for (Output& output : outputs_) output.picks.resize(places_.size() + 1);
  }

  void pack(GatherConv* conv) {
    for (int64_t p = 0; p < conv_panels(shape_); ++p) {
      const ConvPanel panel = conv_panel(shape_, p);
      conv->panels_.push_back({panel.group, panel.first_output, panel.outputs, static_cast<int64_t>(conv->strips_.size()), sorts(panel), {}, {}});
      sort(&conv->panels_.back());
      for (int64_t first = 0; first < panel.outputs; first += kGatherStrip) {
        count_ = std::min(kGatherStrip, panel.outputs - first);
        for (int64_t o = 0; o < count_; ++o) find(panel.first_output + conv->panels_.back().order[first + o], &outputs_[o]);
        add_strip(conv);
      }
    }
    conv->data_ = AlignedBuffer(bytes_.size());
    if (!bytes_.empty()) std::memcpy(conv->data_.data(), bytes_.data(), bytes_.size());
  }

 private:
  // A weight that is not zero, and the byte of the line that it meets.
  struct Pick {
    int32_t byte;
    int8_t value;
  };
  struct Output {
    std::vector<Pick> picks;
    int64_t count = 0, next = 0;
  };
  struct Place {
    int32_t byte, weight;
  };

  // Bringing a pixel's outputs back in order takes as long as a few rounds.
  bool sorts(const ConvPanel& panel) const { return panel.outputs > kGatherStrip && static_cast<int64_t>(places_.size()) >= kSortedInputs; }

  const int8_t* codes_of(int64_t output) const { return weights_.codes + output * static_cast<int64_t>(places_.size()); }

  // The panel's outputs by the number of weights that are not zero.
  void sort(GatherPanel* panel) const {
    int64_t zeros[64];
    for (int64_t o = 0; o < panel->outputs; ++o) {
      const int8_t* const codes = codes_of(panel->output + o);
      zeros[o] = std::count(codes, codes + places_.size(), int8_t{0});
      panel->order[o] = static_cast<uint8_t>(o);
    }
    if (panel->sorted) std::stable_sort(panel->order, panel->order + panel->outputs, [&](uint8_t a, uint8_t b) { return zeros[a] < zeros[b]; });
    for (int64_t at = 0; at < panel->outputs; ++at) panel->place[panel->order[at]] = static_cast<uint8_t>(at);
  }

  void find(int64_t output, Output* found) const {
    const int8_t* const codes = codes_of(output);
    const int8_t plus = weights_.plus ? weights_.plus[output] : int8_t{1}, minus = weights_.plus ? weights_.minus[output] : int8_t{-1};
    Pick* to = found->picks.data();
    for (const Place& place : places_) {  // without a branch on the weight, which nobody can predict
      const int8_t code = codes[place.weight];
      *to = {place.byte, code > 0 ? plus : minus};
      to += code != 0;
    }
    found->count = to - found->picks.data();
  }

  // The next step of the strip takes this part of the line; false after the last.
  bool next_window(Window* window) const {
    int64_t earliest = line_.bytes();
    for (int64_t o = 0; o < count_; ++o) {
      const Output& output = outputs_[o];
      if (output.next < output.count) earliest = std::min<int64_t>(earliest, output.picks[static_cast<size_t>(output.next)].byte);
    }
    if (earliest == line_.bytes()) return false;
    *window = window_at(line_, earliest);
    return true;
  }

  // The output's weights of a step: at most four a round.
  static int64_t taken(const Output& output, const Window& window, int64_t rounds) {
    const int64_t most = std::min(output.count, output.next + 4 * rounds), end = window.begin + window.size;
    int64_t next = output.next;
    while (next < most && output.picks[static_cast<size_t>(next)].byte < end) ++next;
    return next - output.next;
  }

  // Cycles of a pixel.
  static double step_cycles(const Window& window, int64_t rounds) {
    return kRoundCycles * static_cast<double>(rounds) + (window.step.other_mask ? kTwoPlaces : kOnePlace);
  }

  // How many rounds of a step take the most weights a cycle.
  int64_t best_rounds(const Window& window) const {
    if (shape_.out_h * shape_.out_w < kSteadyPixels) return kSteadyRounds;
    int64_t in_window[kGatherStrip], most = 1;
    for (int64_t o = 0; o < count_; ++o) {
      in_window[o] = taken(outputs_[o], window, kMostRounds);
      most = std::max(most, in_window[o]);
    }
    int64_t best = 1;
    double best_rate = 0;
    for (int64_t rounds = std::min(kFewestRounds, up(most, 4)); rounds <= up(most, 4); ++rounds) {
      double weights = 0;
      for (int64_t o = 0; o < count_; ++o) weights += static_cast<double>(std::min(in_window[o], 4 * rounds));
      const double rate = weights / step_cycles(window, rounds);
      if (rate > best_rate) best_rate = rate, best = rounds;
    }
    return best;
  }

  void add_strip(GatherConv* conv) {
    GatherStrip strip{count_, 0, static_cast<int64_t>(conv->steps_.size()), 0, bytes_.size()};
    for (Output& output : outputs_) output.next = 0;
    for (Window window; next_window(&window); ++strip.steps) {
      window.step.rounds = best_rounds(window);
      add_rounds(window, window.step.rounds);
      strip.rounds += window.step.rounds;
      conv->steps_.push_back(window.step);
    }
    conv->strips_.push_back(strip);
  }

  void add_rounds(const Window& window, int64_t rounds) {
    const size_t at = bytes_.size();
    bytes_.resize(at + static_cast<size_t>(rounds * kGatherRoundBytes));
    for (int64_t o = 0; o < count_; ++o) {
      Output& output = outputs_[o];
      const int64_t taken = this->taken(output, window, rounds);
      uint8_t* const lane = &bytes_[at + static_cast<size_t>(4 * o)];
      for (int64_t i = 0; i < taken; ++i) {
        const Pick& pick = output.picks[static_cast<size_t>(output.next++)];
        uint8_t* const to = lane + i / 4 * kGatherRoundBytes + i % 4;
        to[0] = static_cast<uint8_t>(pick.byte - window.begin);
        to[kGatherWindow] = static_cast<uint8_t>(pick.value);
      }
    }
  }

  const ConvShape& shape_;
  const Line line_;
  const ConvWeights& weights_;
  std::vector<Place> places_;  // of all weights of an output, along the line
  Output outputs_[kGatherStrip];
  int64_t count_ = 0;  // of outputs
  std::vector<uint8_t> bytes_;
};

bool GatherConv::available(const char* isa_limit) {
#if defined(__x86_64__)
  return cpu_has_isa(isa()) && __builtin_cpu_supports("avx512vbmi") && (!isa_limit || isa_rank(isa_limit) >= isa_rank(isa()));
#else
  (void)isa_limit;
  return false;
#endif
}

double GatherConv::rounds() const {
  double rounds = 0;
  for (const GatherStrip& strip : strips_) rounds += static_cast<double>(strip.rounds);
  return rounds * static_cast<double>(kGatherWindow) / static_cast<double>(std::max<int64_t>(1, inputs_ * static_cast<int64_t>(strips_.size())));
}

double GatherConv::cycles(int64_t pixels) const {
  // Measured: a round of a pixel, with four and with two 512-bit units; a pixel's 16 outputs from sums to bytes.
  constexpr double kRoundOfFour = 0.83, kRoundOfTwo = 1.24, kOutputs = 3;
  const double round = wide_additions_per_cycle() < 3 ? kRoundOfTwo : kRoundOfFour;
  const double strip = rounds() * static_cast<double>(inputs_) / static_cast<double>(kGatherWindow) * round + kOutputs;
  return strip * static_cast<double>(strips_.size()) * static_cast<double>(pixels);
}

std::unique_ptr<GatherConv> GatherConv::make(const ConvArgs& args, const ConvWeights& weights, const char* isa_limit, bool always) {
  const ConvShape& s = args.shape;
  if (!available(isa_limit) || (s.groups > 1 && s.in_channels / s.groups % 4 != 0)) return nullptr;
  std::unique_ptr<GatherConv> conv(new GatherConv);
  conv->inputs_ = s.in_channels / s.groups * s.kernel_h * s.kernel_w;
  GatherPacker(args, weights).pack(conv.get());
  return always || conv->rounds() < kGainingRounds ? std::move(conv) : nullptr;
}

void GatherConv::run(const ConvArgs& args, const ConvRange& range) const {
#if defined(__x86_64__)
  for (int64_t p = range.panel_begin; p < range.panel_end; ++p) {
    const GatherPanel& panel = panels_[static_cast<size_t>(p)];
    const uint8_t* const next = p + 1 < range.panel_end ? data_.data() + strips_[static_cast<size_t>(panels_[static_cast<size_t>(p + 1)].strip)].data : nullptr;
    run_gather_avx512vnni({args, panel, strips_.data() + panel.strip, steps_.data(), data_.data(), next, range.pixel_begin, range.pixel_end});
  }
#else
  (void)args, (void)range;
#endif
}

}  // namespace tritkit
