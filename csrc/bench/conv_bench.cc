// Speed of every convolution kernel on one thread, in useful multiply-adds a cycle. Clock by a chain of dependent additions.
//   g++ -O3 -std=c++17 -Icsrc csrc/bench/conv_bench.cc $(find BUILD/CMakeFiles/tritkit_objects.dir -name '*.o') -lpthread -o conv_bench
//   taskset -c 1 ./conv_bench [kernel name [part of a layer's name]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/cpu.h"
#include "kernels/conv/conv.h"

using namespace tritkit;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Layer {
  const char* name;
  int64_t in, out, kernel, size, stride, images, groups = 1;
};

const Layer kLayers[] = {
    {"3x3 64->64 56x56", 64, 64, 3, 56, 1, 1},    {"3x3 128->128 28x28", 128, 128, 3, 28, 1, 1},
    {"3x3 256->256 14x14", 256, 256, 3, 14, 1, 1}, {"3x3 512->512 7x7", 512, 512, 3, 7, 1, 1},
    {"3x3 16->16 32x32", 16, 16, 3, 32, 1, 1},    {"3x3 32->32 16x16", 32, 32, 3, 16, 1, 1},
    {"3x3 64->64 8x8", 64, 64, 3, 8, 1, 1},       {"3x3 3->16 32x32", 3, 16, 3, 32, 1, 1},
    {"7x7/2 3->64 112x112", 3, 64, 7, 112, 2, 1}, {"3x3/2 16->32 16x16", 16, 32, 3, 16, 2, 1},
    {"1x1 256->64 56x56", 256, 64, 1, 56, 1, 1},  {"1x1 64->256 56x56", 64, 256, 1, 56, 1, 1},
    {"1x1 512->2048 7x7", 512, 2048, 1, 7, 1, 1}, {"fc 4096->4096", 4096, 4096, 1, 1, 1, 1},
    {"fc 512->1000", 512, 1000, 1, 1, 1, 1},
    {"fc 64->10 x64", 64, 10, 1, 1, 1, 64},
    {"depthwise 32 112x112", 32, 32, 3, 112, 1, 1, 32}, {"depthwise 144 56x56", 144, 144, 3, 56, 1, 1, 144},
    {"depthwise 960 7x7", 960, 960, 3, 7, 1, 1, 960},   {"8 groups of 6 28x28", 48, 48, 3, 28, 1, 1, 8},
};

uint8_t* aligned(std::vector<uint8_t>& storage, size_t bytes) {
  storage.assign(bytes + 64, 1);
  return storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
}

// Seconds of one run: the least of many.
double seconds(const ConvKernel& kernel, const ConvArgs& args, const ConvRange& range) {
  double best = 1e9, spent = 0;
  for (int i = 0; i < 5 || (spent < 0.1 && i < 20000); ++i) {
    const double begin = now();
    kernel.run(args, range);
    const double taken = now() - begin;
    best = std::min(best, taken), spent += taken;
  }
  return best;
}

double measure(const ConvKernel& kernel, const Layer& l, bool ternary, ConvOutput output) {
  ConvShape s;
  s.in_channels = l.in, s.out_channels = l.out, s.groups = l.groups, s.kernel_h = s.kernel_w = l.kernel;
  s.stride_h = s.stride_w = l.stride, s.out_h = s.out_w = l.size;
  if (!kernel.fits(s, ternary)) return 0;
  const int64_t width = (l.size - 1) * l.stride + l.kernel, pixels = l.images * l.size * l.size;
  std::vector<int8_t> codes(static_cast<size_t>(l.in * l.out / l.groups * l.kernel * l.kernel)), one(static_cast<size_t>(l.out), 1), minus(static_cast<size_t>(l.out), -1);
  for (int8_t& code : codes) code = static_cast<int8_t>(std::rand() % 3 - 1);
  std::vector<uint8_t> xs, ys, rs, packs, scratch;
  ConvArgs a;
  a.shape = s, a.output = output;
  a.x_pixel = (l.in + 3) / 4 * 4, a.x_row = width * a.x_pixel, a.x_image = width * a.x_row;
  a.r_pixel = a.y_pixel = l.out, a.r_row = a.y_row = l.size * a.y_pixel, a.r_image = a.y_image = l.size * a.y_row;
  a.x = aligned(xs, static_cast<size_t>(l.images * a.x_image));
  a.y = aligned(ys, static_cast<size_t>(l.images * a.y_image));
  a.r = aligned(rs, static_cast<size_t>(l.images * a.y_image));
  void* const packed = aligned(packs, kernel.packed_bytes(s, ternary));
  kernel.pack(s, {codes.data(), ternary ? one.data() : nullptr, ternary ? minus.data() : nullptr}, packed);
  a.packed = packed;
  a.scratch = aligned(scratch, kernel.scratch_bytes(s));
  const std::vector<int32_t> bias(static_cast<size_t>(padded_outputs(l.out)), 3);
  const std::vector<float> multiplier(bias.size(), 0.01f);
  a.bias = bias.data(), a.multiplier = multiplier.data(), a.v_scale = a.r_scale = 0.5f;
  const double best = seconds(kernel, a, {0, pixels, 0, kernel.panels(s)});
  return static_cast<double>(pixels) * static_cast<double>(codes.size()) / best;
}

}  // namespace

int main(int argc, char** argv) {
  const ConvKernel* kernels[32];
  const size_t count = conv_kernels(nullptr, kernels, 32);
  for (size_t i = 0; i < count; ++i) {
    if (argc > 1 ? std::strcmp(kernels[i]->name, argv[1]) != 0 : i + 1 == count) continue;
    std::printf("%s: MAC a cycle (GMAC/s)\n%-22s %16s %16s %16s\n", kernels[i]->name, "", "ternary", "ternary + add", "int8");
    for (const Layer& layer : kLayers) {
      if (argc > 2 && !std::strstr(layer.name, argv[2])) continue;
      const double rate = 1e9 * cycles_per_nanosecond();
      const double ternary = measure(*kernels[i], layer, true, ConvOutput::requantize);
      const double add = measure(*kernels[i], layer, true, ConvOutput::requantize_add);
      const double int8 = measure(*kernels[i], layer, false, ConvOutput::requantize);
      std::printf("%-22s", layer.name);
      for (const double r : {ternary, add, int8}) std::printf(" %7.1f (%6.1f)", r / rate, r / 1e9);
      std::printf("  clock %.2f GHz\n", rate / 1e9);
    }
  }
}
