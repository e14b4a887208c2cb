// Every convolution kernel this CPU runs against the reference, bit for bit, and the reference against a plain restatement of
// the formula. Buffers have their exact sizes and end, or begin, at a page that may not be touched.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/threads.h"
#include "kernels/conv/conv.h"
#include "tests/kernel_cases.h"

using namespace tritkit;
using namespace tritkit_test;

namespace {

struct Case {
  ConvShape shape;
  int64_t images = 1;
  bool ternary = true;
  bool extreme = false;
  int64_t codebook = 6;
  bool in_place = false;  // the residual is the output
  ConvOutput output = ConvOutput::requantize;
  int64_t x_gap = 0, y_gap = 0;  // extra bytes between pixels, rows, images
  Edge edge = Edge::end;
  int64_t shift = 0;  // of the images from their page
  bool threads = false;
};

std::string describe(const Case& c) {
  const ConvShape& s = c.shape;
  char text[256];
  std::snprintf(text, sizeof text,
                "%ld->%ld groups %ld kernel %ldx%ld stride %ldx%ld dilation %ldx%ld out %ldx%ld images %ld %s output %d gaps %ld %ld%s%s",
                (long)s.in_channels, (long)s.out_channels, (long)s.groups, (long)s.kernel_h, (long)s.kernel_w, (long)s.stride_h,
                (long)s.stride_w, (long)s.dilation_h, (long)s.dilation_w, (long)s.out_h, (long)s.out_w, (long)c.images,
                c.ternary ? "ternary" : "int8", static_cast<int>(c.output), (long)c.x_gap, (long)c.y_gap,
                c.extreme ? " extreme" : "", c.in_place ? " in place" : "");
  return text;
}

int64_t weight_count(const ConvShape& s) { return s.out_channels * s.in_channels / s.groups * s.kernel_h * s.kernel_w; }

// All buffers of a case but y and the packed weights.
struct Data {
  Case c;
  ConvArgs args;
  int64_t y_size = 0;
  std::vector<int8_t> codes, plus, minus;
  Guarded x, r, bias, multiplier;

  explicit Data(const Case& c)
      : c(c), x(layout_x(), c.edge, 1, c.shift), r(layout_y(), c.edge, 1, c.shift), bias(4 * padded_outputs(c.shape.out_channels), c.edge),
        multiplier(4 * padded_outputs(c.shape.out_channels), c.edge) {
    args.x = x.as();
    args.bias = bias.as<int32_t>();
    args.multiplier = multiplier.as<float>();
    args.output = c.output;
    args.shape = c.shape;
    args.r = c.output == ConvOutput::requantize_add ? r.as() : nullptr;
    fill_weights();
    fill_channels();
    if (c.extreme) std::memset(x.as(), 255, static_cast<size_t>(x.size()));
    for (int32_t* zero : {&args.y_zero, &args.v_zero, &args.r_zero}) *zero = static_cast<int32_t>(one_of<int64_t>({0, 1, 128, 255, pick(0, 255)}));
    args.v_scale = static_cast<float>(pick(1, 3000)) / 1000.0f;
    args.r_scale = one_of({0.5f, 1.0f, static_cast<float>(pick(1, 3000)) / 1000.0f, 3e37f});
  }

 private:
  int64_t layout_x() {
    const ConvShape& s = c.shape;
    const int64_t height = (s.out_h - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
    const int64_t width = (s.out_w - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    const int64_t pixel = (s.in_channels + 3) / 4 * 4;
    args.x_pixel = pixel + c.x_gap / 4 * 4;
    args.x_row = width * args.x_pixel + c.x_gap;
    args.x_image = height * args.x_row + c.x_gap;
    return (c.images - 1) * args.x_image + (height - 1) * args.x_row + (width - 1) * args.x_pixel + pixel;
  }

  int64_t layout_y() {
    const ConvShape& s = c.shape;
    const int64_t pixel = s.out_channels * (c.output == ConvOutput::to_float ? 4 : 1);
    args.r_pixel = args.y_pixel = pixel + c.y_gap;
    args.r_row = args.y_row = s.out_w * args.y_pixel + c.y_gap;
    args.r_image = args.y_image = s.out_h * args.y_row + c.y_gap;
    y_size = (c.images - 1) * args.y_image + (s.out_h - 1) * args.y_row + (s.out_w - 1) * args.y_pixel + pixel;
    return y_size;
  }

  void fill_weights() {
    const int style = static_cast<int>(pick(0, 3));
    for (int64_t i = 0; i < weight_count(c.shape); ++i) {
      const int64_t sign = style == 0 ? 1 : style == 1 ? -1 : style == 2 ? (i % 2 ? 1 : -1) : pick(-1, 1);
      codes.push_back(static_cast<int8_t>(c.ternary ? (c.extreme ? sign : pick(-1, 1)) : c.extreme ? 64 * sign : pick(-64, 64)));
    }
    for (int64_t o = 0; c.ternary && o < c.shape.out_channels; ++o) {
      const Codebook book = codebook();
      plus.push_back(static_cast<int8_t>(book.plus));
      minus.push_back(static_cast<int8_t>(-book.minus));
    }
  }

  // Of one kind a layer, as kernels may treat each kind in its own way.
  struct Codebook {
    int64_t plus, minus;
  };
  Codebook codebook() const {
    const int64_t same = pick(1, 64), unit = pick(1, 4);
    switch (c.codebook) {
      case 0: return {64, 64};
      case 1: return {1, 1};
      case 2: return {same, same};
      case 3: return {unit * pick(1, 16), unit * pick(1, 16)};  // one that has a common factor, in values of up to 16
      case 4: return {16, 3};
      case 5: return {unit * 16, unit * 15};
      default: return {pick(1, 64), pick(1, 64)};
    }
  }

  void fill_channels() {
    const double spread = 1000.0 * std::sqrt(static_cast<double>(weight_count(c.shape) / c.shape.out_channels));
    for (int64_t o = 0; o < padded_outputs(c.shape.out_channels); ++o) {
      const bool real = o < c.shape.out_channels;
      args_bias(o) = real ? static_cast<int32_t>(pick(-20000, 20000)) : 0;
      const float usual = static_cast<float>(static_cast<double>(pick(1, 1000)) / spread);
      multiplier.as<float>()[o] = real ? (chance(90) ? usual : one_of({0.5f, 0.25f, 1.0f, 0.0f, 1e-40f, 3e38f})) : 0.0f;
    }
    if (chance(5)) args_bias(0) = one_of({1 << 30, -(1 << 30)});
  }

  int32_t& args_bias(int64_t o) { return bias.as<int32_t>()[o]; }
};

using Output = std::vector<uint8_t>;

void run_ranges(const ConvKernel& kernel, const ConvArgs& args, const std::vector<ConvRange>& ranges, bool threads) {
  static ThreadPool two(2, 0);
  struct Call {
    const ConvKernel& kernel;
    const ConvArgs& args;
    const std::vector<ConvRange>& ranges;
  } call = {kernel, args, ranges};
  const auto run = [](void* ctx, int64_t, int part, int parts) {
    const Call& c = *static_cast<Call*>(ctx);
    Guarded scratch(static_cast<int64_t>(c.kernel.scratch_bytes(c.args.shape)), Edge::end, 64, 0, false);
    ConvArgs args = c.args;
    args.scratch = scratch.as();
    for (size_t i = static_cast<size_t>(part); i < c.ranges.size(); i += static_cast<size_t>(parts)) c.kernel.run(args, c.ranges[i]);
  };
  threads ? two.run(1, run, &call) : run(&call, 0, 0, 1);
}

// y after the kernel ran over `ranges`, y before being `before`.
Output run(const ConvKernel& kernel, const Data& data, const std::vector<ConvRange>& ranges, const Output& before) {
  const ConvShape& s = data.c.shape;
  Guarded packed(static_cast<int64_t>(kernel.packed_bytes(s, data.c.ternary)), data.c.edge, 64);
  kernel.pack(s, {data.codes.data(), data.c.ternary ? data.plus.data() : nullptr, data.c.ternary ? data.minus.data() : nullptr},
              packed.as());
  Guarded y(data.y_size, data.c.edge);
  std::copy(before.begin(), before.end(), y.as());
  ConvArgs args = data.args;
  args.packed = packed.as();
  args.y = y.as();
  if (data.c.in_place && args.r) args.r = y.as();
  run_ranges(kernel, args, ranges, data.c.threads);
  return Output(y.as(), y.as() + y.size());
}

std::vector<ConvRange> random_ranges(const Case& c, int64_t panels) {
  const int64_t pixels = c.images * c.shape.out_h * c.shape.out_w;
  if (chance(50)) return {{0, pixels, 0, panels}};
  const int64_t pixel = pick(0, pixels), panel = pick(0, panels);
  std::vector<ConvRange> ranges = {{0, pixel, 0, panel}, {pixel, pixels, 0, panel}, {0, pixel, panel, panels}};
  if (chance(50)) ranges.push_back({pixel, pixels, panel, panels});  // otherwise that part must stay as it was
  return ranges;
}

float rounded(float value, int32_t zero) { return std::min(255.0f, std::max(0.0f, std::nearbyint(value) + static_cast<float>(zero))); }

// The formula of conv.h, one output at a time, from coordinates.
void expect_output(const Data& d, const Output& before, int64_t image, int64_t oy, int64_t ox, int64_t o, Output& y) {
  const ConvShape& s = d.c.shape;
  const int64_t channels = s.in_channels / s.groups, group = o / (s.out_channels / s.groups);
  int64_t acc = d.args.bias[o];
  for (int64_t ky = 0; ky < s.kernel_h; ++ky)
    for (int64_t kx = 0; kx < s.kernel_w; ++kx)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t code = d.codes[static_cast<size_t>(((o * s.kernel_h + ky) * s.kernel_w + kx) * channels + c)];
        const size_t at = static_cast<size_t>(o);
        const int64_t weight = !d.c.ternary ? code : code == 1 ? d.plus[at] : code == -1 ? d.minus[at] : 0;
        const int64_t y_in = oy * s.stride_h + ky * s.dilation_h, x_in = ox * s.stride_w + kx * s.dilation_w;
        acc += weight * d.args.x[image * d.args.x_image + y_in * d.args.x_row + x_in * d.args.x_pixel + group * channels + c];
      }
  const int64_t pixel = image * d.args.y_image + oy * d.args.y_row + ox * d.args.y_pixel;
  const float value = static_cast<float>(static_cast<int32_t>(acc)) * d.args.multiplier[o];
  if (d.c.output == ConvOutput::to_float) {
    std::memcpy(&y[static_cast<size_t>(pixel + 4 * o)], &value, 4);
  } else if (d.c.output == ConvOutput::requantize) {
    y[static_cast<size_t>(pixel + o)] = static_cast<uint8_t>(rounded(value, d.args.y_zero));
  } else {
    const float v = rounded(value, d.args.v_zero) - static_cast<float>(d.args.v_zero);
    const int32_t r = d.c.in_place ? before[static_cast<size_t>(pixel + o)] : d.args.r[pixel + o];
    const float left = v * d.args.v_scale, right = static_cast<float>(r - d.args.r_zero) * d.args.r_scale;
    y[static_cast<size_t>(pixel + o)] = static_cast<uint8_t>(rounded(left + right, d.args.y_zero));
  }
}

Output expected(const Data& d, const Output& before) {
  Output y = before;
  for (int64_t image = 0; image < d.c.images; ++image)
    for (int64_t oy = 0; oy < d.c.shape.out_h; ++oy)
      for (int64_t ox = 0; ox < d.c.shape.out_w; ++ox)
        for (int64_t o = 0; o < d.c.shape.out_channels; ++o) expect_output(d, before, image, oy, ox, o, y);
  return y;
}

Coverage coverage;

void same(const char* name, const Case& c, const Output& got, const Output& want) {
  if (got == want) return;
  const auto at = std::mismatch(got.begin(), got.end(), want.begin());
  coverage.fail("%s: byte %ld of %ld is %d, not %d: %s", name, static_cast<long>(at.first - got.begin()),
                static_cast<long>(got.size()), *at.first, *at.second, describe(c).c_str());
}

const ConvKernel* kernels[32];
size_t kernel_count = 0;

void check(const Case& c) {
  const Data data(c);
  Output before(static_cast<size_t>(data.y_size));
  for (uint8_t& byte : before) byte = static_cast<uint8_t>(rng()());
  const ConvKernel& reference = *kernels[kernel_count - 1];
  const int64_t panels = reference.panels(c.shape);
  const std::vector<ConvRange> ranges = random_ranges(c, panels);
  const Output want = run(reference, data, ranges, before);
  if (ranges.size() == 1) same("reference against the formula", c, want, expected(data, before));
  coverage.ran(reference.name, reference.isa);
  for (size_t i = 0; i + 1 < kernel_count; ++i) {
    const ConvKernel& kernel = *kernels[i];
    if (!kernel.fits(c.shape, c.ternary)) continue;
    if (kernel.panels(c.shape) != panels) coverage.fail("%s: panels", kernel.name);
    same(kernel.name, c, run(kernel, data, ranges, before), want);
    coverage.ran(kernel.name, kernel.isa);
  }
}

int64_t macs(const Case& c) { return c.images * c.shape.out_h * c.shape.out_w * weight_count(c.shape); }

int64_t x_pixels(const Case& c) { return c.images * c.shape.out_h * c.shape.out_w * c.shape.stride_h * c.shape.stride_w; }

// Depthwise, with and without several outputs a channel; groups of channels that fill quads; and of any number.
void make_groups(ConvShape& s) {
  s.groups = chance(40) ? s.in_channels : pick(2, 8);
  const int64_t multiple = chance(50) ? 4 : 1;
  if (s.groups != s.in_channels) s.in_channels = s.groups * multiple * pick(1, 12);
  const bool single = s.groups == s.in_channels && chance(70);
  s.out_channels = s.groups * (single ? 1 : chance(20) ? pick(60, 70) : pick(1, 20));
}

Case random_case() {
  Case c;
  ConvShape& s = c.shape;
  do {
    s.in_channels = chance(50) ? one_of<int64_t>({1, 2, 3, 4, 8, 16, 32, 64, 128}) : pick(1, 130);
    s.out_channels = chance(50) ? one_of<int64_t>({1, 8, 10, 15, 16, 17, 32, 33, 64, 65, 128}) : pick(1, 130);
    s.groups = 1;
    if (chance(40)) make_groups(s);
    s.kernel_h = one_of<int64_t>({1, 1, 2, 3, 3, 3, 5, 7, 11});
    s.kernel_w = chance(80) ? s.kernel_h : one_of<int64_t>({1, 3, 4});
    s.stride_h = pick(1, 4), s.stride_w = chance(70) ? s.stride_h : pick(1, 3);
    s.dilation_h = chance(70) ? 1 : pick(1, 3), s.dilation_w = chance(70) ? s.dilation_h : pick(1, 3);
    s.out_h = one_of<int64_t>({1, 7, pick(1, 9)}), s.out_w = one_of<int64_t>({1, 7, pick(1, 30)});
    c.images = chance(60) ? 1 : chance(90) ? pick(1, 4) : 128;
  } while (macs(c) > 2000000 || x_pixels(c) > 4000);
  c.ternary = chance(65);
  c.extreme = chance(20);
  c.codebook = pick(0, 6);
  c.shift = chance(30) ? pick(1, 3) : 0;
  c.threads = chance(30);
  c.output = one_of({ConvOutput::requantize, ConvOutput::requantize_add, ConvOutput::to_float});
  c.in_place = chance(40);
  c.x_gap = chance(40) ? pick(0, 13) : 0;
  c.y_gap = chance(40) ? pick(0, 13) : 0;
  c.edge = one_of({Edge::begin, Edge::end});
  return c;
}

// The largest sums the format allows: K = 65792 inputs of 255 times 64.
void check_longest_sum() {
  for (const bool ternary : {true, false}) {
    Case c;
    c.shape.in_channels = 65792;
    c.shape.out_channels = 5;
    c.shape.out_w = 2;
    c.ternary = ternary;
    c.extreme = true;
    for (c.codebook = 0; c.codebook < 6; ++c.codebook) check(c);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 2000;
  kernel_count = conv_kernels(nullptr, kernels, 32);
  const ConvKernel* limited[32];
  if (conv_kernels("scalar", limited, 32) != 1 || limited[0] != kernels[kernel_count - 1]) {
    coverage.fail("the limit \"scalar\" must leave the reference alone");
  }
  check_longest_sum();
  for (int i = 0; i < count; ++i) check(random_case());
  for (size_t i = 0; i < kernel_count; ++i) {
    if (!coverage.has_run(kernels[i]->name)) coverage.fail("%s did not run", kernels[i]->name);
  }
#if defined(__x86_64__)
  return coverage.report({"scalar", "avx2", "avxvnni", "avx512vnni", "amx"});
#else
  return coverage.report({"scalar"});
#endif
}
