#include "kernels/conv/layout.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

namespace tritkit {
namespace {

constexpr int64_t kPanel = 64;

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t group_outputs(const ConvShape& s) { return s.out_channels / s.groups; }
int64_t group_channels(const ConvShape& s) { return s.in_channels / s.groups; }
int64_t tap_quads(const ConvShape& s) { return up(group_channels(s), 4); }

int64_t blocks_of_run(const ConvShape& s, int64_t vectors) { return up(conv_runs(s).quads, 4 / vectors); }

int64_t panel_bytes(const ConvVectors& v, const ConvShape& s, bool ternary, int64_t outputs) {
  int64_t bytes = 0;
  while (outputs > 0) {
    const int64_t vectors = conv_strip_vectors(v, outputs);
    bytes += conv_strip_bytes(v, s, ternary, vectors);
    outputs -= vectors * v.lanes;
  }
  return bytes;
}

// One strip being packed: outputs [first, first + outputs) of the whole convolution.
struct Strip {
  const ConvVectors& v;
  const ConvShape& shape;
  const ConvWeights& weights;
  int64_t first, outputs, vectors;
};

// One output of the strip being packed.
class OutputPacker {
 public:
  OutputPacker(const Strip& strip, int64_t j, uint8_t* blocks)
      : strip_(strip),
        sums_(conv_strip_sums(strip.vectors)),
        ways_(sums_ / strip.vectors),
        block_quads_(4 / strip.vectors),
        vector_bytes_(4 * strip.v.lanes),
        j_(j),
        vector_(j / strip.v.lanes),
        lane_(j % strip.v.lanes),
        blocks_(blocks) {}

  // Codes of the `count` <= 4 channels of a quad; `quad` counts blocks' quads from the strip's first block.
  void put(int64_t quad, const int8_t* codes, int64_t count) {
    const int64_t way = (j_ ^ quad) & (ways_ - 1), step = (quad & (block_quads_ - 1)) >= ways_ ? 1 : 0;
    const int64_t block = quad * strip_.vectors >> 2, field = step * sums_ + vector_ * ways_ + way;
    const int64_t byte = (lane_ ^ way) * 4;
    if (strip_.weights.plus) {
      uint32_t four = 0, there;
      std::memcpy(&four, codes, static_cast<size_t>(count));
      uint8_t* const bytes = blocks_ + block * vector_bytes_ + byte;
      std::memcpy(&there, bytes, 4);
      there |= (four & 0x03030303u) << 2 * field;
      std::memcpy(bytes, &there, 4);
    } else {
      std::memcpy(blocks_ + (block * 4 + field) * vector_bytes_ + byte, codes, static_cast<size_t>(count));
    }
  }

 private:
  const Strip& strip_;
  int64_t sums_, ways_, block_quads_, vector_bytes_, j_, vector_, lane_;
  uint8_t* blocks_;
};

// The codes of a tap after `skipped` channels of no weight.
void put_later(OutputPacker& output, int64_t quad, int64_t skipped, const int8_t* codes, int64_t channels) {
  for (int64_t c = -skipped; c < channels; c += 4, ++quad) {
    int8_t four[4] = {};
    for (int64_t i = 0; i < 4; ++i) four[i] = c + i >= 0 && c + i < channels ? codes[c + i] : 0;
    output.put(quad, four, 4);
  }
}

void pack_output(const Strip& strip, int64_t j, uint8_t* blocks) {
  const ConvShape& s = strip.shape;
  const int64_t channels = group_channels(s), taps = s.kernel_h * s.kernel_w, quads = tap_quads(s);
  const int64_t taps_of_run = conv_runs(s).quads / quads, run_quads = blocks_of_run(s, strip.vectors) * (4 / strip.vectors);
  const int64_t group = strip.first / group_outputs(s), skipped = group * channels - conv_group_begin(s, group);
  const int8_t* codes = strip.weights.codes + (strip.first + j) * taps * channels;
  OutputPacker output(strip, j, blocks);
  for (int64_t tap = 0; tap < taps; ++tap, codes += channels) {
    const int64_t first = tap / taps_of_run * run_quads + tap % taps_of_run * quads;
    if (skipped > 0) {
      put_later(output, first, skipped, codes, channels);
      continue;
    }
    for (int64_t q = 0; q < channels / 4; ++q) output.put(first + q, codes + 4 * q, 4);
    if (channels % 4 != 0) output.put(first + channels / 4, codes + channels / 4 * 4, channels % 4);
  }
}

// The values of an output's codes +1 and -1.
struct Codebook {
  int plus, minus, unit = 1;
  Codebook(const Strip& strip, int64_t j) : plus(strip.weights.plus[strip.first + j]), minus(strip.weights.minus[strip.first + j]) {}

  // Values of codes that no weight has become 0, the others are divided by what they have in common.
  void divide(const Strip& strip, int64_t j) {
    const int64_t count = strip.shape.kernel_h * strip.shape.kernel_w * group_channels(strip.shape);
    const int8_t* codes = strip.weights.codes + (strip.first + j) * count;
    int any = 0;  // bit 0: a code is +1, bit 1: one is -1
    for (int64_t k = 0; k < count; ++k) any |= codes[k] > 0 ? 1 : codes[k] & 2;
    if (!(any & 1)) plus = 0;
    if (!(any & 2)) minus = 0;
    unit = std::max(1, std::gcd(plus, minus));
    plus /= unit, minus /= unit;
  }
  bool small() const { return std::abs(plus) <= kConvLargestInUnits && std::abs(minus) <= kConvLargestInUnits; }
};

// The strip's codebooks in units; as they are where their values are too large for that.
std::vector<Codebook> codebooks(const Strip& strip) {
  std::vector<Codebook> plain, divided;
  for (int64_t j = 0; j < strip.outputs; ++j) {
    plain.emplace_back(strip, j);
    divided.push_back(plain.back());
    if (strip.v.units) divided.back().divide(strip, j);
  }
  const bool small = std::all_of(divided.begin(), divided.end(), [](const Codebook& book) { return book.small(); });
  return strip.v.units && small ? divided : plain;
}

void pack_tables(const Strip& strip, uint8_t* tables) {
  const int64_t ways = conv_strip_sums(strip.vectors) / strip.vectors;
  const std::vector<Codebook> books = codebooks(strip);
  for (int64_t j = 0; j < strip.outputs; ++j) {
    const Codebook& book = books[static_cast<size_t>(j)];
    for (int64_t way = 0; way < ways; ++way) {
      const int64_t table = j / strip.v.lanes * ways + way, lane = (j % strip.v.lanes) ^ way;
      uint8_t* const values = tables + (table * strip.v.lanes + lane) * 4;
      values[1] = static_cast<uint8_t>(book.plus);
      values[2] = static_cast<uint8_t>(book.unit);
      values[3] = static_cast<uint8_t>(book.minus);
    }
  }
}

}  // namespace

int64_t conv_panels(const ConvShape& s) { return s.groups * up(group_outputs(s), kPanel); }

ConvPanel conv_panel(const ConvShape& s, int64_t panel) {
  const int64_t a_group = up(group_outputs(s), kPanel), first = panel % a_group * kPanel;
  const int64_t left = group_outputs(s) - first;
  return {panel / a_group, panel / a_group * group_outputs(s) + first, left < kPanel ? left : kPanel};
}

int64_t conv_group_begin(const ConvShape& s, int64_t group) {
  const int64_t last = 4 * up(s.in_channels, 4) - 4 * tap_quads(s);
  return std::min(group * group_channels(s), last);
}

ConvRuns conv_runs(const ConvShape& s) {
  if (s.groups == 1 && s.dilation_w == 1) return {s.kernel_h, 1, s.kernel_w * tap_quads(s)};
  return {s.kernel_h, s.kernel_w, tap_quads(s)};
}

int64_t conv_strip_vectors(const ConvVectors& v, int64_t outputs) {
  int64_t vectors = 1;
  while (vectors < v.widest && vectors * v.lanes < outputs) vectors *= 2;
  return vectors;
}

int64_t conv_strip_bytes(const ConvVectors& v, const ConvShape& s, bool ternary, int64_t vectors) {
  const ConvRuns runs = conv_runs(s);
  const int64_t blocks = runs.rows * runs.columns * blocks_of_run(s, vectors);
  return (ternary ? conv_strip_sums(vectors) + blocks : 4 * blocks) * 4 * v.lanes;
}

int64_t conv_panel_offset(const ConvVectors& v, const ConvShape& s, bool ternary, int64_t panel) {
  const int64_t a_group = up(group_outputs(s), kPanel), outputs = group_outputs(s);
  const int64_t full = panel_bytes(v, s, ternary, kPanel);
  const int64_t last = panel_bytes(v, s, ternary, outputs - (a_group - 1) * kPanel);
  return kConvPackedHeader + panel / a_group * ((a_group - 1) * full + last) + panel % a_group * full;
}

size_t conv_packed_bytes(const ConvVectors& v, const ConvShape& s, bool ternary) {
  return static_cast<size_t>(conv_panel_offset(v, s, ternary, conv_panels(s)));
}

void conv_pack(const ConvVectors& v, const ConvShape& s, const ConvWeights& weights, void* packed) {
  const bool ternary = weights.plus != nullptr;
  uint8_t* const out = static_cast<uint8_t*>(packed);
  std::memset(out, 0, conv_packed_bytes(v, s, ternary));
  out[0] = ternary;
  for (int64_t i = 0; i < conv_panels(s); ++i) {
    const ConvPanel panel = conv_panel(s, i);
    uint8_t* at = out + conv_panel_offset(v, s, ternary, i);
    for (int64_t done = 0; done < panel.outputs;) {
      const int64_t left = panel.outputs - done, vectors = conv_strip_vectors(v, left), room = vectors * v.lanes;
      const Strip strip{v, s, weights, panel.first_output + done, left < room ? left : room, vectors};
      if (ternary) pack_tables(strip, at);
      uint8_t* const blocks = ternary ? at + conv_strip_sums(vectors) * 4 * v.lanes : at;
      for (int64_t j = 0; j < strip.outputs; ++j) pack_output(strip, j, blocks);
      at += conv_strip_bytes(v, s, ternary, vectors);
      done += strip.outputs;
    }
  }
}

}  // namespace tritkit
