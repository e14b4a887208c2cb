#include "kernels/conv/layout.h"

#include <cstring>

namespace tritkit {
namespace {

constexpr int64_t kPanel = 64;

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t group_outputs(const ConvShape& s) { return s.out_channels / s.groups; }
int64_t group_channels(const ConvShape& s) { return s.in_channels / s.groups; }
int64_t taps(const ConvShape& s) { return s.kernel_h * s.kernel_w; }

int64_t blocks_of_tap(const ConvShape& s, int64_t vectors) { return up(up(group_channels(s), 4), 4 / vectors); }

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

void pack_tables(const Strip& strip, uint8_t* out) {
  for (int64_t j = 0; j < strip.outputs; ++j) {
    out[4 * j + 1] = static_cast<uint8_t>(strip.weights.plus[strip.first + j]);
    out[4 * j + 3] = static_cast<uint8_t>(strip.weights.minus[strip.first + j]);
  }
}

// `code` of output j of the strip at one tap and channel, into the strip's zeroed blocks.
void put(const Strip& strip, int64_t tap, int64_t channel, int64_t j, int8_t code, uint8_t* blocks) {
  const int64_t quads = 4 / strip.vectors, vector_bytes = 4 * strip.v.lanes;
  const int64_t block = tap * blocks_of_tap(strip.shape, strip.vectors) + channel / 4 / quads;
  const int64_t field = channel / 4 % quads * strip.vectors + j / strip.v.lanes;
  const int64_t byte = j % strip.v.lanes * 4 + channel % 4;
  if (strip.weights.plus) {
    blocks[block * vector_bytes + byte] |= static_cast<uint8_t>((code & 3) << 2 * field);
  } else {
    blocks[(block * 4 + field) * vector_bytes + byte] = static_cast<uint8_t>(code);
  }
}

void pack_blocks(const Strip& strip, uint8_t* blocks) {
  const int64_t channels = group_channels(strip.shape), all_taps = taps(strip.shape);
  for (int64_t j = 0; j < strip.outputs; ++j) {
    const int8_t* code = strip.weights.codes + (strip.first + j) * all_taps * channels;
    for (int64_t tap = 0; tap < all_taps; ++tap) {
      for (int64_t c = 0; c < channels; ++c) put(strip, tap, c, j, *code++, blocks);
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

int64_t conv_strip_vectors(const ConvVectors& v, int64_t outputs) {
  int64_t vectors = 1;
  while (vectors < v.max_vectors && vectors * v.lanes < outputs) vectors *= 2;
  return vectors;
}

int64_t conv_strip_bytes(const ConvVectors& v, const ConvShape& s, bool ternary, int64_t vectors) {
  const int64_t blocks = taps(s) * blocks_of_tap(s, vectors);
  return (ternary ? vectors + blocks : 4 * blocks) * 4 * v.lanes;
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
      pack_blocks(strip, ternary ? at + vectors * 4 * v.lanes : at);
      at += conv_strip_bytes(v, s, ternary, vectors);
      done += strip.outputs;
    }
  }
}

}  // namespace tritkit
