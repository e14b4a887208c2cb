// The truth: the formula of conv.h in plain loops. Never optimised.
#include <cmath>
#include <cstring>

#include "kernels/conv/conv.h"

namespace tritkit {
namespace {

int64_t weights_per_output(const ConvShape& s) { return s.in_channels / s.groups * s.kernel_h * s.kernel_w; }

bool fits(const ConvShape&, bool) { return true; }

size_t packed_bytes(const ConvShape& s, bool) { return static_cast<size_t>(s.out_channels * weights_per_output(s)); }

// The int8 weights, in the order they come.
void pack(const ConvShape& s, const ConvWeights& weights, void* packed) {
  int8_t* const out = static_cast<int8_t*>(packed);
  const int64_t count = weights_per_output(s);
  for (int64_t o = 0; o < s.out_channels; ++o) {
    for (int64_t k = 0; k < count; ++k) {
      const int8_t code = weights.codes[o * count + k];
      const bool ternary = weights.plus != nullptr;
      out[o * count + k] = !ternary || code == 0 ? code : code > 0 ? weights.plus[o] : weights.minus[o];
    }
  }
}

int64_t panels_of_group(const ConvShape& s) { return (s.out_channels / s.groups + 63) / 64; }

int64_t panels(const ConvShape& s) { return s.groups * panels_of_group(s); }

int32_t accumulate(const ConvArgs& a, const uint8_t* pixel, int64_t o) {
  const ConvShape& s = a.shape;
  const int64_t channels = s.in_channels / s.groups;
  const int8_t* w = static_cast<const int8_t*>(a.packed) + o * weights_per_output(s);
  const uint8_t* const group = pixel + o / (s.out_channels / s.groups) * channels;
  int32_t acc = a.bias[o];
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
      const uint8_t* const x = group + ky * s.dilation_h * a.x_row + kx * s.dilation_w * a.x_pixel;
      for (int64_t c = 0; c < channels; ++c) acc += x[c] * *w++;
    }
  }
  return acc;
}

uint8_t clip(float value, int32_t zero) {
  const float v = std::nearbyint(value) + static_cast<float>(zero);
  return v <= 0.0f ? 0 : v >= 255.0f ? 255 : static_cast<uint8_t>(v);
}

uint8_t add_residual(const ConvArgs& a, uint8_t v, uint8_t r) {
  const float left = static_cast<float>(v - a.v_zero) * a.v_scale;
  const float right = static_cast<float>(r - a.r_zero) * a.r_scale;
  return clip(left + right, a.y_zero);
}

void write(const ConvArgs& a, int64_t y_at, int64_t r_at, int64_t o, int32_t acc) {
  const float value = static_cast<float>(acc) * a.multiplier[o];
  uint8_t* const y = static_cast<uint8_t*>(a.y) + y_at;
  if (a.output == ConvOutput::to_float) {
    std::memcpy(y + o * static_cast<int64_t>(sizeof value), &value, sizeof value);
  } else if (a.output == ConvOutput::requantize) {
    y[o] = clip(value, a.y_zero);
  } else {
    y[o] = add_residual(a, clip(value, a.v_zero), a.r[r_at + o]);
  }
}

// Output channels of one panel: [begin, end).
void panel_outputs(const ConvShape& s, int64_t panel, int64_t* begin, int64_t* end) {
  const int64_t outputs = s.out_channels / s.groups, first = panel % panels_of_group(s) * 64;
  const int64_t count = outputs - first < 64 ? outputs - first : 64;
  *begin = panel / panels_of_group(s) * outputs + first;
  *end = *begin + count;
}

void run(const ConvArgs& a, const ConvRange& range) {
  const ConvShape& s = a.shape;
  for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) {
    int64_t begin, end;
    panel_outputs(s, panel, &begin, &end);
    for (int64_t p = range.pixel_begin; p < range.pixel_end; ++p) {
      const int64_t image = p / (s.out_h * s.out_w), row = p / s.out_w % s.out_h, column = p % s.out_w;
      const uint8_t* const x = a.x + image * a.x_image + row * s.stride_h * a.x_row + column * s.stride_w * a.x_pixel;
      const int64_t y_at = image * a.y_image + row * a.y_row + column * a.y_pixel;
      const int64_t r_at = image * a.r_image + row * a.r_row + column * a.r_pixel;
      for (int64_t o = begin; o < end; ++o) write(a, y_at, r_at, o, accumulate(a, x, o));
    }
  }
}

}  // namespace

extern const ConvKernel conv_reference;
const ConvKernel conv_reference = {"reference", "scalar", fits, packed_bytes, pack, run, panels, no_scratch};

}  // namespace tritkit
