#include "kernels/gather/gather.h"

#include <algorithm>
#include <cstring>

#include "base/cpu.h"
#include "kernels/conv/layout.h"

namespace tritkit {
namespace {

constexpr int64_t kWindow = 64, kStrip = 16;
constexpr size_t kRoundBytes = 128;
// A round costs a shuffle and a product where the dense kernel has a product: measured, 1.5 times as much. Products per window of
// 16 outputs, of which dense kernels take 16, above which nothing is gained.
constexpr double kMostRounds = 10.5;

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The nonzero weights of one output in a window, four to a round.
struct Picks {
  uint8_t index[kWindow];
  int8_t value[kWindow];
  int64_t count = 0;
};

Picks pick(const ConvWeights& weights, const std::vector<int64_t>& inputs, int64_t output, int64_t output_weights) {
  Picks picks;
  const int8_t* codes = weights.codes + output * output_weights;
  for (size_t b = 0; b < inputs.size(); ++b) {
    const int8_t code = inputs[b] < 0 ? int8_t{0} : codes[inputs[b]];
    if (code == 0) continue;
    picks.index[picks.count] = static_cast<uint8_t>(b);
    picks.value[picks.count++] = !weights.plus ? code : code > 0 ? weights.plus[output] : weights.minus[output];
  }
  return picks;
}

}  // namespace

bool GatherConv::available(const char* isa_limit) {
#if defined(__x86_64__)
  return cpu_has_isa(isa()) && __builtin_cpu_supports("avx512vbmi") && (!isa_limit || isa_rank(isa_limit) >= isa_rank(isa()));
#else
  (void)isa_limit;
  return false;
#endif
}

std::unique_ptr<GatherConv> GatherConv::make(const ConvArgs& args, const ConvWeights& weights, const char* isa_limit, bool always) {
  const ConvShape& s = args.shape;
  if (!available(isa_limit) || (s.groups > 1 && s.in_channels / s.groups % 4 != 0)) return nullptr;
  std::unique_ptr<GatherConv> conv(new GatherConv);
  const ConvRuns packed = conv_runs(s);
  const int64_t channels = s.in_channels / s.groups, tap_bytes = 4 * up(channels, 4);
  const bool joined = packed.columns == 1 && args.x_pixel == tap_bytes;  // the taps of a row follow one another
  const int64_t columns = joined ? 1 : s.kernel_w, bytes = joined ? s.kernel_w * tap_bytes : tap_bytes;
  for (int64_t run = 0; run < s.kernel_h * columns; ++run) {
    const int64_t row = run / columns, column = run % columns;
    const int64_t offset = row * s.dilation_h * args.x_row + column * s.dilation_w * args.x_pixel;
    for (int64_t first = 0; first < bytes; first += kWindow) {
      const int64_t size = std::min(kWindow, bytes - first);
      conv->windows_.push_back({offset + first, size == kWindow ? ~0ull : (1ull << size) - 1});
      std::vector<int64_t> inputs(static_cast<size_t>(size));
      for (int64_t b = 0; b < size; ++b) {
        const int64_t tap = row * s.kernel_w + column + (first + b) / tap_bytes, channel = (first + b) % tap_bytes;
        inputs[static_cast<size_t>(b)] = channel < channels ? tap * channels + channel : -1;
      }
      conv->inputs_.push_back(std::move(inputs));
    }
  }
  const bool fits = conv->pack(s, weights, always ? kStrip : kMostRounds);
  conv->inputs_.clear();
  return fits ? std::move(conv) : nullptr;
}

// False if there are more than `most` rounds a window on average.
bool GatherConv::pack(const ConvShape& s, const ConvWeights& weights, double most) {
  const int64_t output_weights = s.in_channels / s.groups * s.kernel_h * s.kernel_w;
  size_t rounds = 0, strips = 0;
  for (int64_t p = 0; p < conv_panels(s); ++p) {
    const ConvPanel panel = conv_panel(s, p);
    panels_.push_back({panel.group, panel.first_output, panel.outputs, rounds * kRoundBytes, {}});
    for (int64_t first = 0; first < panel.outputs; first += kStrip, ++strips) {
      for (const std::vector<int64_t>& inputs : inputs_) {
        int64_t fullest = 0;
        for (int64_t o = first; o < std::min(first + kStrip, panel.outputs); ++o) {
          fullest = std::max(fullest, pick(weights, inputs, panel.first_output + o, output_weights).count);
        }
        panels_.back().rounds.push_back(static_cast<uint8_t>(up(fullest, 4)));
        rounds += static_cast<size_t>(up(fullest, 4));
      }
    }
  }
  if (static_cast<double>(rounds) > most * static_cast<double>(strips * windows_.size())) return false;
  data_ = AlignedBuffer(rounds * kRoundBytes);
  for (const GatherPanel& panel : panels_) {
    uint8_t* at = data_.data() + panel.data;
    const uint8_t* round = panel.rounds.data();
    for (int64_t first = 0; first < panel.outputs; first += kStrip) {
      for (const std::vector<int64_t>& inputs : inputs_) {
        for (int64_t o = first; o < std::min(first + kStrip, panel.outputs); ++o) {
          const Picks picks = pick(weights, inputs, panel.output + o, output_weights);
          for (int64_t i = 0; i < picks.count; ++i) {
            uint8_t* const lane = at + i / 4 * static_cast<int64_t>(kRoundBytes) + 4 * (o - first) + i % 4;
            lane[0] = picks.index[i];
            lane[kWindow] = static_cast<uint8_t>(picks.value[i]);
          }
        }
        at += *round++ * kRoundBytes;
      }
    }
  }
  return true;
}

void GatherConv::run(const ConvArgs& args, const ConvRange& range) const {
#if defined(__x86_64__)
  for (int64_t p = range.panel_begin; p < range.panel_end; ++p) {
    run_gather_avx512vnni({args, windows_, panels_[static_cast<size_t>(p)], data_.data(), range.pixel_begin, range.pixel_end});
  }
#else
  (void)args, (void)range;
#endif
}

}  // namespace tritkit
