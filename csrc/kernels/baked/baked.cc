#include "kernels/baked/baked.h"

#include <algorithm>

#include "base/cpu.h"

namespace tritkit {
namespace {

constexpr double kSparseGuess = 1.5;  // the estimate of code that is made may be so far above it
constexpr double kFewWeights = 220;   // not zero, of an output: with so many short sums are likely
constexpr double kNearCode = 640 * 1024;  // bytes of code that stay in the second cache; none stays decoded while other layers run

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Part `part` of `parts` even shares of `units`, from where to where.
struct Share {
  int64_t begin, end;
};
Share share_of(int64_t units, int64_t part, int64_t parts) { return {units * part / parts, units * (part + 1) / parts}; }

}  // namespace

BakedConv::BakedConv(const BakedKernel& kernel, const ConvShape& shape, const BakedPads& pads)
    : kernel_(kernel), shape_(shape), geometry_(shape, pads) {}

#if defined(__x86_64__) && defined(__unix__)
extern const BakedKernel baked_avx512vnni, baked_avx2;
size_t baked_kernels(const char* isa_limit, const BakedKernel** out) {
  size_t count = 0;
  for (const BakedKernel* kernel : {&baked_avx512vnni, &baked_avx2}) {
    if (cpu_has_isa(kernel->isa) && (!isa_limit || isa_rank(isa_limit) >= isa_rank(kernel->isa))) out[count++] = kernel;
  }
  return count;
}
#else
size_t baked_kernels(const char*, const BakedKernel**) { return 0; }
#endif

std::unique_ptr<BakedConv> BakedConv::make(const ConvShape& shape, const BakedPads& pads, const ConvWeights& weights,
                                           const char* isa_limit, size_t code_limit, double rival) {
  const BakedKernel* kernels[2];
  if (baked_kernels(isa_limit, kernels) == 0) return nullptr;
  std::unique_ptr<BakedConv> conv(new BakedConv(*kernels[0], shape, pads));
  if (!weights.plus || !conv->geometry_.fits() || (shape.groups > 1 && shape.in_channels / shape.groups % 4 != 0)) return nullptr;
  conv->estimate(weights);
  if (conv->code_size_ > kSparseGuess * static_cast<double>(code_limit) || std::min(conv->cycles(1), conv->cycles(16) / 16) >= rival) return nullptr;
  BakedProgram program = conv->kernel_.bake(shape, conv->geometry_, weights, code_limit);
  if (program.code.empty()) return nullptr;
  conv->code_ = CodeMemory(program.code);
  conv->panels_ = std::move(program.panels);
  conv->short_sums_ = std::all_of(conv->panels_.begin(), conv->panels_.end(), [](const BakedPanel& panel) { return panel.short_sums; });
  conv->instructions_ = static_cast<double>(program.instructions);
  conv->code_size_ = static_cast<double>(program.code.size());
  return conv->code_ ? std::move(conv) : nullptr;
}

// Every weight that is not zero is an addition but for those that outputs share, and a tile loads what any of its outputs needs.
void BakedConv::estimate(const ConvWeights& weights) {
  const int64_t inputs = geometry_.channels() * shape_.kernel_h * shape_.kernel_w, count = shape_.out_channels * inputs;
  const double nonzero = static_cast<double>(count - std::count(weights.codes, weights.codes + count, int8_t{0}));
  const double loads = std::min(nonzero, static_cast<double>(up(shape_.out_channels, kernel_.sums) * inputs));
  const double additions = nonzero * additions_of_weight(shape_, geometry_, weights, kernel_.sums);
  instructions_ = additions + loads;
  short_sums_ = nonzero <= kFewWeights * static_cast<double>(shape_.out_channels);
  code_size_ = static_cast<double>(kernel_.add_bytes) * additions + static_cast<double>(kernel_.load_bytes) * loads;
}

size_t BakedConv::scratch_bytes() const { return kernel_.scratch_bytes(geometry_); }

// Each thread its own weights, where both read all pixels: little work is done twice, and less code passes through each core's caches.
bool BakedConv::split_panels(int64_t batch, int64_t parts) const {
  const int64_t panels = static_cast<int64_t>(panels_.size()), most = up(panels, parts);
  return batch < 2 * parts && panels >= parts && 10 * most * parts <= 11 * panels;
}

void BakedConv::run(const ConvArgs& args, int64_t batch, int64_t part, int64_t parts, uint8_t* scratch) const {
  const int64_t panels = static_cast<int64_t>(panels_.size()), rows = batch * shape_.out_h;
  BakedWork work{args, geometry_, panels_.data(), panels, code_.data(), 0, rows, scratch};
  if (parts > 1 && split_panels(batch, parts)) {
    const Share share = share_of(panels, part, parts);
    work.panels += share.begin;
    work.panel_count = share.end - share.begin;
  } else {
    const int64_t grain = batch >= parts ? shape_.out_h : 1;
    const Share share = share_of(rows / grain, part, parts);
    work.row_begin = share.begin * grain;
    work.row_end = share.end * grain;
  }
  kernel_.run(work);
}

double BakedConv::cycles(int64_t batch) const {
  // Cycles an instruction, measured on CPUs with two and with four vector units: decoded before, from the second cache, from the third.
  const bool two_units = kernel_.halves == 1 && wide_additions_per_cycle() < 3;
  const double hot = two_units ? 1 / 1.9 : 1 / 3.8, cold = two_units ? 1 / 0.55 : 1 / 1.8, far = two_units ? 1.0 : 1 / 1.2;
  int64_t count_of_bands = 0;
  const double blocks = static_cast<double>(geometry_.blocks_of(batch, &count_of_bands)), bands = static_cast<double>(count_of_bands);
  const double first = code_size_ > kNearCode ? far : cold;
  const double around = 4.0 * static_cast<double>(geometry_.channels() * shape_.groups) +
                        (short_sums_ ? 10.0 : 16.0) * static_cast<double>(shape_.out_channels);
  const double halves = kernel_.halves;
  return instructions_ * (bands * (first + (halves - 1) * hot) + (blocks - bands) * halves * hot) + halves * blocks * around;
}

}  // namespace tritkit
