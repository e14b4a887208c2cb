#include "kernels/winograd/winograd.h"

#include <algorithm>
#include <cstdlib>

#include "base/cpu.h"

namespace tritkit {
namespace {

constexpr int64_t kScale = 24 * 24;
constexpr int64_t kWorkingBytes = 1 << 20;  // of transformed inputs and of products
constexpr uint32_t kNinth = 954437177;  // 9 kNinth = 1 modulo 2^32

bool exact(const ConvShape& s, const ConvWeights& w) {
  const int64_t inputs = 9 * s.in_channels;
  for (int64_t o = 0; o < s.out_channels; ++o) {
    const int8_t* const codes = w.codes + o * inputs;
    const int64_t nonzero = inputs - std::count(codes, codes + inputs, int8_t{0});
    if (w.plus[o] != -w.minus[o] || 255 * kScale * nonzero >= int64_t{1} << 31) return false;
  }
  return true;
}

// 24 G by its factors: what three weights are at the points 0, 1, -1, 2, -2 and infinity.
constexpr int8_t kG[kWinogradPatch][3] = {{1, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 2}};

// A weight of each output of a panel.
using Outputs = int8_t[64];

void combine(const int8_t* g, const Outputs& a, const Outputs& b, const Outputs& c, Outputs& sum) {
  for (int o = 0; o < 64; ++o) sum[o] = static_cast<int8_t>(g[0] * a[o] + g[1] * b[o] + g[2] * c[o]);
}

// A channel's nine taps to its 36 places: at most 49 times as large.
void transform(const Outputs* taps, Outputs* places) {
  Outputs rows[kWinogradPatch][3];
  for (int i = 0; i < kWinogradPatch; ++i) {
    for (int x = 0; x < 3; ++x) combine(kG[i], taps[x], taps[3 + x], taps[6 + x], rows[i][x]);
  }
  for (int i = 0; i < kWinogradPlaces; ++i) {
    const Outputs* const row = rows[i / kWinogradPatch];
    combine(kG[i % kWinogradPatch], row[0], row[1], row[2], places[i]);
  }
}

}  // namespace

WinogradLayout::WinogradLayout(const ConvShape& s) : quads((s.in_channels + 3) / 4), outputs(width(s.out_channels)) {
  tiles = std::clamp<int64_t>(kWorkingBytes / (kWinogradPlaces * (2 * pitch() + 4 * outputs)), 1, kWinogradMostTiles);
}

bool WinogradConv::available(const char* isa_limit) {
#if defined(__x86_64__)
  return cpu_has_isa(isa()) && (!isa_limit || isa_rank(isa_limit) >= isa_rank(isa()));
#else
  (void)isa_limit;
  return false;
#endif
}

size_t WinogradConv::scratch_bytes(const ConvShape& s) {
  const WinogradLayout l(s);
  const int64_t inputs = 2 * l.input_step(l.tiles), products = 4 * l.product_step(l.tiles, l.outputs);
  return static_cast<size_t>(kWinogradPlaces * (inputs + products) + 2 * l.chunk_words(l.outputs));
}

double WinogradConv::cycles(const ConvShape& s) {
  // Measured: a cycle's multiply-adds at the places; cycles to transform 64 channels, and 16 outputs, and to widen 4 channels of 64 outputs.
  constexpr double kProducts = 55, kInputs = 400, kOutputs = 190, kWeights = 400;
  const WinogradLayout layout(s);
  const int64_t tiles = (s.out_h + kWinogradTile - 1) / kWinogradTile * ((s.out_w + kWinogradTile - 1) / kWinogradTile);
  const double quads = static_cast<double>(layout.quads), panels = static_cast<double>(s.out_channels) / 64;
  const double tile = kWinogradPlaces * quads * 4 * 64 * panels / kProducts + static_cast<double>(layout.pitch()) / 64 * kInputs + 4 * panels * kOutputs;
  return static_cast<double>(tiles) * tile + static_cast<double>((tiles + layout.tiles - 1) / layout.tiles) * quads * panels * kWeights;
}

void WinogradConv::pack(const ConvShape& s, const ConvWeights& weights) {
  const WinogradLayout layout(s);
  int64_t bytes = 0;
  for (int64_t output = 0; output < s.out_channels; output += 64) bytes += layout.panel_bytes(WinogradLayout::width(s.out_channels - output));
  packed_ = AlignedBuffer(static_cast<size_t>(bytes));
  factors_ = AlignedBuffer(static_cast<size_t>(padded_outputs(s.out_channels)) * sizeof(uint32_t));
  for (int64_t o = 0; o < s.out_channels; ++o) reinterpret_cast<uint32_t*>(factors_.data())[o] = kNinth * static_cast<uint32_t>(weights.plus[o]);
  Outputs taps[9] = {}, places[kWinogradPlaces];
  for (int64_t first = 0; first < s.out_channels; first += 64) {
    const int64_t outputs = std::min<int64_t>(64, s.out_channels - first), width = WinogradLayout::width(outputs);
    uint8_t* const panel = packed_.data() + first / 64 * layout.panel_bytes(64);
    for (int64_t c = 0; c < s.in_channels; ++c) {
      const int8_t* const codes = weights.codes + first * 9 * s.in_channels + c;
      for (int64_t o = 0; o < outputs; ++o) {
        for (int64_t t = 0; t < 9; ++t) taps[t][o] = codes[(9 * o + t) * s.in_channels];
      }
      transform(taps, places);
      for (int64_t i = 0; i < kWinogradPlaces; ++i) {
        uint8_t* const to = panel + i * layout.place_bytes(width) + c / 4 * width * 4 + c % 4;
        for (int64_t o = 0; o < outputs; ++o) to[4 * o] = static_cast<uint8_t>(places[i][o]);
      }
    }
  }
}

std::unique_ptr<WinogradConv> WinogradConv::make(const ConvShape& s, const ConvWeights& weights, const char* isa_limit, double rival) {
  const bool square = s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1;
  if (!available(isa_limit) || !weights.plus || !square || s.groups != 1 || cycles(s) >= rival || !exact(s, weights)) return nullptr;
  std::unique_ptr<WinogradConv> conv(new WinogradConv);
  conv->pack(s, weights);
  return conv;
}

void WinogradConv::run(const ConvArgs& args, const ConvRange& range) const {
  if (range.pixel_begin >= range.pixel_end || range.panel_begin >= range.panel_end) return;
#if defined(__x86_64__)
  const WinogradLayout layout(args.shape);
  run_winograd_avx512vnni({args, range, layout, reinterpret_cast<const int8_t*>(packed_.data()), reinterpret_cast<const int32_t*>(factors_.data())});
#else
  (void)args;
#endif
}

}  // namespace tritkit
