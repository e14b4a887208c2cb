#include "kernels/float32/float32.h"

#include <algorithm>

namespace tritkit {
namespace {

// y[i, j] += w * x[i * stride - top + ky, ...] for the outputs whose tap lies inside the image.
void add_tap(const FloatConvArgs& a, float w, const float* x, float* y, int64_t shift_h, int64_t shift_w) {
  for (int64_t i = 0; i < a.out_h; ++i) {
    const int64_t h = i * a.stride_h + shift_h;
    if (h < 0 || h >= a.in_h) continue;
    const int64_t first = shift_w >= 0 ? 0 : (-shift_w + a.stride_w - 1) / a.stride_w;
    const int64_t last = shift_w >= a.in_w ? 0 : std::min(a.out_w, (a.in_w - 1 - shift_w) / a.stride_w + 1);
    const float* from = x + h * a.in_w + shift_w;
    float* to = y + i * a.out_w;
    for (int64_t j = first; j < last; ++j) to[j] += w * from[j * a.stride_w];
  }
}

}  // namespace

void float_conv(const FloatConvArgs& a, const float* x, float* y, int64_t begin, int64_t end) {
  const int64_t group_in = a.in_channels / a.groups, group_out = a.out_channels / a.groups;
  const int64_t in_plane = a.in_h * a.in_w, out_plane = a.out_h * a.out_w, taps = a.kernel_h * a.kernel_w;
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t n = plane / a.out_channels, o = plane % a.out_channels;
    const float* image = x + (n * a.in_channels + o / group_out * group_in) * in_plane;
    float* out = y + plane * out_plane;
    std::fill_n(out, out_plane, a.bias[o]);
    for (int64_t k = 0; k < group_in * taps; ++k) {
      const int64_t ky = k % taps / a.kernel_w, kx = k % a.kernel_w;
      add_tap(a, a.weights[o * group_in * taps + k], image + k / taps * in_plane, out, ky * a.dilation_h - a.top,
              kx * a.dilation_w - a.left);
    }
  }
}

void float_clip(float low, float high, const float* x, float* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float v = x[i] < low ? low : x[i];
    y[i] = v > high ? high : v;
  }
}

}  // namespace tritkit
