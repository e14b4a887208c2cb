// The weighted step: weights packed for the first kernel that fits, zero point folded into the bias.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>

#include "base/checked.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "kernels/baked/baked.h"
#include "kernels/copy/copy.h"
#include "kernels/gather/gather.h"
#include "kernels/winograd/winograd.h"
#include "runtime/steps.h"

namespace tritkit {
namespace {

constexpr double kTileRate = 350, kDenseRate = 115, kNarrowRate = 50;  // multiply-adds a cycle of AMX, of AVX512-VNNI, of the others
constexpr double kClearly = 0.92;  // machine code and unpacked weights have to win by so much: they take room in the caches from others
constexpr double kBakedEstimate = 1.15;  // of machine code is too slow by so much beside that of Winograd's
constexpr int64_t kMostUnpacked = 1 << 24;  // weights of a layer: as bytes, more would come from memory each time
constexpr double kAlways = std::numeric_limits<double>::infinity();
constexpr int64_t kSparsePixels = 8;  // of an image, below which the memory of the weights decides, and dense ones are the smallest

class ConvStep final : public Step {
 public:
  ConvStep(const StepContext& context, const PlannedNode& node, const Conv& conv);
  void run(const Frame& frame, int64_t part, int64_t parts) const override;
  int64_t scratch_bytes() const override {
    const size_t baked = baked_ ? baked_->scratch_bytes() : 0, winograd = winograd_ ? WinogradConv::scratch_bytes(args_.shape) : 0;
    return static_cast<int64_t>(std::max({kernel_->scratch_bytes(args_.shape), baked, winograd}));
  }
  bool try_way(int way) override;
  void choose(const int64_t* nanoseconds) override;
  const Choice* choice() const override { return chosen_ ? &choice_ : nullptr; }

 private:
  bool use_baked(int64_t batch) const { return baked_ && (way_ < 0 ? batch >= baked_from_ : way_ == Choice::baked); }
  bool use_gather() const { return gather_ && (way_ < 0 || way_ == Choice::gather); }
  bool use_winograd() const { return winograd_ && (way_ < 0 || way_ == Choice::winograd); }
  bool several_ways() const { return unpacked_.size() > 0 || gather_ || winograd_ || baked_; }
  void add_ways(const StepContext& context, const Conv& conv, const Window& window, const ConvWeights& weights);
  void add_unpacked(const ConvWeights& weights);
  void keep(Choice::Way plain);
  void add_chosen(const StepContext& context, const BakedPads& pads, const ConvWeights& weights);
  void describe();
  double dense_rate() const;
  double predicted_cycles() const;
  void choose_kernel(const StepContext& context, const Conv& conv);
  void fold(const Conv& conv, float x_scale, int32_t x_zero, float y_scale);
  void set_outputs(const StepContext& context, const PlannedNode& node, const Conv& conv);
  void pack(const StepContext& context, const Conv& conv, const Window& window);
  ConvRange range(int64_t batch, int64_t part, int64_t parts) const;
  void ask_for_borders(const uint8_t* x, const ConvRange& range, int64_t part, int64_t parts) const;

  const ConvKernel* kernel_ = nullptr;
  bool ternary_ = false;
  int64_t panels_ = 1;
  bool split_panels_ = false;  // weights outweigh pixels: each thread reads only its own weights
  ConvArgs args_;              // all but the pointers to activations
  Place x_, y_, residual_;
  int64_t x_shift_ = 0;  // from pixel (0, 0) back to where the first tap reads
  AlignedBuffer packed_, bias_, multiplier_;
  AlignedBuffer unpacked_;              // weights of 2 bits packed as those of int8 layers are, while both are tried
  bool is_unpacked_ = false;            // so packed_ is
  std::unique_ptr<GatherConv> gather_;      // runs in place of kernel_
  std::unique_ptr<WinogradConv> winograd_;  // likewise; one of the two is left at most when the best is known
  std::unique_ptr<BakedConv> baked_;        // and in place of all from a batch on
  int64_t baked_from_ = 1;              // the smallest batch it runs
  int way_ = -1;                        // while they are tried
  bool chosen_ = false;
  Choice choice_;
};

// [O, C, kh, kw] to the kernels' [O, kh, kw, C].
std::vector<int8_t> channels_last(const std::vector<int8_t>& codes, const ConvShape& shape) {
  const int64_t channels = shape.in_channels / shape.groups, taps = shape.kernel_h * shape.kernel_w;
  if (taps == 1 || channels == 1) return codes;
  std::vector<int8_t> result(codes.size());
  for (int64_t o = 0; o < shape.out_channels; ++o) {
    const int8_t* from = &codes[o * channels * taps];
    int8_t* to = &result[o * channels * taps];
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t c = 0; c < channels; ++c) to[t * channels + c] = from[c * taps + t];
    }
  }
  return result;
}

ConvShape conv_shape(const Conv& conv, const Window& w, const Value& x, const Value& y) {
  return {x.channels, y.channels, conv.groups, w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, y.height, y.width};
}

void set_strides(const Place& place, int64_t* image, int64_t* row, int64_t* pixel) {
  *image = place.image.image;
  *row = place.image.row;
  *pixel = place.image.pixel;
}

ConvStep::ConvStep(const StepContext& context, const PlannedNode& node, const Conv& conv) {
  const Value& x = context.graph.values[node.inputs[0]];
  const Value& own = context.graph.values[context.graph.nodes[node.node].output];  // before a fused addition
  x_ = context.layout.places[node.inputs[0]];
  y_ = context.layout.places[node.output];
  args_.shape = conv_shape(conv, node.window, x, own);
  set_strides(x_, &args_.x_image, &args_.x_row, &args_.x_pixel);
  x_shift_ = node.window.top * args_.x_row + node.window.left * args_.x_pixel;
  choose_kernel(context, conv);
  set_outputs(context, node, conv);
  fold(conv, x.scale, x.zero, own.scale);
  ternary_ = conv.ternary;
  info.weights = static_cast<int64_t>(conv.codes.size());
  info.nonzero = info.weights - std::count(conv.codes.begin(), conv.codes.end(), int8_t{0});
  info.macs = info.weights * own.height * own.width;
  pack(context, conv, node.window);
  describe();
  nanoseconds = info.macs / 100;
  split_panels_ = panels_ > 1 && info.packed_bytes > x_.bytes;
}

// Names what runs, and its bytes.
void ConvStep::describe() {
  info.kernel = gather_ ? GatherConv::name() : winograd_ ? WinogradConv::name() : std::string(kernel_->name) + (is_unpacked_ ? "_unpacked" : "");
  if (baked_ && baked_from_ == 1) info.kernel = baked_->name();
  if (baked_ && baked_from_ > 1) info.kernel += std::string(" / ") + baked_->name() + " from batch " + std::to_string(baked_from_);
  info.packed_bytes = static_cast<int64_t>(gather_ ? gather_->packed_bytes() : winograd_ ? winograd_->packed_bytes() : packed_.size());
  info.code_bytes = baked_ ? static_cast<int64_t>(baked_->code_bytes()) : 0;
  info.dense_nanoseconds = choice_.nanoseconds[Choice::dense];
  info.unpacked_nanoseconds = choice_.nanoseconds[Choice::unpacked];
  info.gather_nanoseconds = choice_.nanoseconds[Choice::gather];
  info.winograd_nanoseconds = choice_.nanoseconds[Choice::winograd];
  info.baked_nanoseconds = choice_.nanoseconds[Choice::baked];
  info.predicted_nanoseconds = ternary_ ? static_cast<int64_t>(predicted_cycles() / cycles_per_nanosecond()) : 0;
}

double ConvStep::dense_rate() const {
  if (std::strcmp(kernel_->isa, "amx") == 0) return kTileRate;
  return std::strcmp(kernel_->isa, "avx512vnni") == 0 ? kDenseRate : kNarrowRate;
}

// Of an image on one thread.
double ConvStep::predicted_cycles() const {
  if (baked_ && baked_from_ == 1) return baked_->cycles(1);
  const double dense = static_cast<double>(info.macs) / dense_rate();
  if (winograd_) return std::min(dense, WinogradConv::cycles(args_.shape));
  return gather_ ? std::min(dense, gather_->cycles(args_.shape.out_h * args_.shape.out_w)) : dense;
}

void ConvStep::choose_kernel(const StepContext& context, const Conv& conv) {
  for (size_t i = 0; i < context.kernel_count && !kernel_; ++i) {
    if (context.kernels[i]->fits(args_.shape, conv.ternary)) kernel_ = context.kernels[i];
  }
  if (!kernel_) throw Error(TK_INTERNAL, "no convolution kernel runs this shape");
  panels_ = kernel_->panels(args_.shape);
}

void ConvStep::set_outputs(const StepContext& context, const PlannedNode& node, const Conv& conv) {
  const Value& own = context.graph.values[context.graph.nodes[node.node].output];
  const Value& y = context.graph.values[node.output];
  if (conv.to_float) {
    args_.output = ConvOutput::to_float;
    args_.y_pixel = args_.y_row = args_.y_image = y.channels * 4;  // rank 2: dense [N, O]
    return;
  }
  set_strides(y_, &args_.y_image, &args_.y_row, &args_.y_pixel);
  args_.y_zero = y.zero;
  if (node.add < 0) return;
  const Value& residual = context.graph.values[node.residual];
  residual_ = context.layout.places[node.residual];
  args_.output = ConvOutput::requantize_add;
  set_strides(residual_, &args_.r_image, &args_.r_row, &args_.r_pixel);
  args_.v_zero = own.zero;
  args_.r_zero = residual.zero;
  args_.v_scale = own.scale / y.scale;
  args_.r_scale = residual.scale / y.scale;
}

// bias' = bias - x_zero * sum(w), so that the halo may hold x_zero. |bias'| < 2^31 by the limits of docs/format.md.
void ConvStep::fold(const Conv& conv, float x_scale, int32_t x_zero, float y_scale) {
  const int64_t outputs = args_.shape.out_channels, inputs = static_cast<int64_t>(conv.codes.size()) / outputs;
  bias_ = AlignedBuffer(padded_outputs(outputs) * sizeof(int32_t));
  multiplier_ = AlignedBuffer(padded_outputs(outputs) * sizeof(float));
  int32_t* bias = reinterpret_cast<int32_t*>(bias_.data());
  float* multiplier = reinterpret_cast<float*>(multiplier_.data());
  for (int64_t o = 0; o < outputs; ++o) {
    const int8_t* const codes = &conv.codes[o * inputs];
    int64_t sum = std::accumulate(codes, codes + inputs, int64_t{0});
    if (conv.ternary) {
      const int64_t ones = std::count(codes, codes + inputs, int8_t{1});
      sum = ones * conv.plus[o] + (ones - sum) * conv.minus[o];  // codes add up to the ones without the others
    }
    bias[o] = static_cast<int32_t>(conv.bias[o] - x_zero * sum);
    const float product = x_scale * conv.w_scale[o];
    multiplier[o] = conv.to_float ? product : product / y_scale;
  }
  args_.bias = bias;
  args_.multiplier = multiplier;
}

void ConvStep::pack(const StepContext& context, const Conv& conv, const Window& window) {
  const size_t bytes = kernel_->packed_bytes(args_.shape, conv.ternary);
  if (static_cast<int64_t>(bytes) > physical_memory() || bytes > SIZE_MAX / 2) throw std::bad_alloc();
  packed_ = AlignedBuffer(bytes);
  const std::vector<int8_t> codes = channels_last(conv.codes, args_.shape);
  ConvWeights weights;
  weights.codes = codes.data();
  if (conv.ternary) {
    weights.plus = conv.plus.data();
    weights.minus = conv.minus.data();
  }
  kernel_->pack(args_.shape, weights, packed_.data());
  args_.packed = packed_.data();
  add_ways(context, conv, window, weights);
}

// The other ways of a ternary layer, as far as the engine allows them.
void ConvStep::add_ways(const StepContext& context, const Conv& conv, const Window& window, const ConvWeights& weights) {
  const Options& options = context.options;
  const char* const isa = options.isa.empty() ? nullptr : options.isa.c_str();
  const bool tried = options.engine == Engine::fastest && args_.shape.out_h * args_.shape.out_w >= kSparsePixels;
  if (!conv.ternary) return;
  const BakedPads pads{window.top, window.left, window.bottom, window.right};
  if (context.choice) return add_chosen(context, pads, weights);
  if (tried || options.engine == Engine::unpacked) add_unpacked(weights);
  if (options.engine == Engine::unpacked) keep(Choice::unpacked);
  if (tried || options.engine == Engine::gather) gather_ = GatherConv::make(args_, weights, isa, !tried);
  double rival = tried ? predicted_cycles() : kAlways;
  if (tried || options.engine == Engine::winograd) winograd_ = WinogradConv::make(args_.shape, weights, isa, rival);
  if (winograd_) rival = std::min(rival, kBakedEstimate * WinogradConv::cycles(args_.shape));
  if (tried || options.engine == Engine::baked) baked_ = BakedConv::make(args_.shape, pads, weights, isa, *context.code_left, rival);
  if (baked_) *context.code_left -= baked_->code_bytes();
}

// Those that a session before found to be the best.
void ConvStep::add_chosen(const StepContext& context, const BakedPads& pads, const ConvWeights& weights) {
  const char* const isa = context.options.isa.empty() ? nullptr : context.options.isa.c_str();
  choice_ = *context.choice, chosen_ = true;
  if (choice_.plain == Choice::unpacked) add_unpacked(weights);
  if (choice_.plain == Choice::gather) gather_ = GatherConv::make(args_, weights, isa, true);
  if (choice_.plain == Choice::winograd) winograd_ = WinogradConv::make(args_.shape, weights, isa, kAlways);
  keep(choice_.plain);
  if (choice_.baked_from > 0) baked_ = BakedConv::make(args_.shape, pads, weights, isa, *context.code_left, kAlways);
  if (baked_) *context.code_left -= baked_->code_bytes();
  baked_from_ = choice_.baked_from;
}

// Where dot products and decoding share the ports of the CPU, as on Intel's, bytes are faster than 2 bits, if the caches hold them. Not
// for plain AVX2, whose kernel gains by knowing that weights are ternary, nor for AMX, which decodes once for all pixels.
void ConvStep::add_unpacked(const ConvWeights& weights) {
  const bool dots = std::strcmp(kernel_->isa, "avx512vnni") == 0 || std::strcmp(kernel_->isa, "avxvnni") == 0;
  if (!dots || info.weights > kMostUnpacked || !kernel_->fits(args_.shape, false)) return;
  std::vector<int8_t> values(static_cast<size_t>(info.weights));
  const int64_t outputs = args_.shape.out_channels, inputs = info.weights / outputs;
  for (int64_t o = 0; o < outputs; ++o) {
    const int8_t value[3] = {weights.minus[o], 0, weights.plus[o]};
    for (int64_t i = o * inputs; i < (o + 1) * inputs; ++i) values[i] = value[weights.codes[i] + 1];
  }
  unpacked_ = AlignedBuffer(kernel_->packed_bytes(args_.shape, false));
  kernel_->pack(args_.shape, {values.data(), nullptr, nullptr}, unpacked_.data());
}

// Of the ways without machine code only this one.
void ConvStep::keep(Choice::Way plain) {
  is_unpacked_ = plain == Choice::unpacked && unpacked_.size() > 0;
  if (is_unpacked_) packed_ = std::move(unpacked_);
  unpacked_ = AlignedBuffer();
  if (plain != Choice::gather) gather_ = nullptr;
  if (plain != Choice::winograd) winograd_ = nullptr;
  if (gather_ || winograd_) packed_ = AlignedBuffer();
  args_.packed = packed_.data();
}

bool ConvStep::try_way(int way) {
  way_ = way;
  const bool there[Choice::kWays] = {several_ways(), unpacked_.size() > 0, gather_ != nullptr, winograd_ != nullptr, baked_ != nullptr};
  return there[way];
}

// For batches, whose code is read from memory once for many images, the estimate of the baked way's cycles is corrected by what was
// measured.
void ConvStep::choose(const int64_t* nanoseconds) {
  constexpr int64_t kBatches[] = {1, 2, 4, 8, 16, 32};
  way_ = -1;
  if (!several_ways()) return;
  std::copy_n(nanoseconds, Choice::kWays, choice_.nanoseconds);
  choice_.plain = Choice::dense;
  const auto best = [&] { return static_cast<double>(nanoseconds[choice_.plain]); };
  if (unpacked_.size() > 0 && static_cast<double>(nanoseconds[Choice::unpacked]) < kClearly * best()) choice_.plain = Choice::unpacked;
  if (gather_ && static_cast<double>(nanoseconds[Choice::gather]) < best()) choice_.plain = Choice::gather;
  if (winograd_ && static_cast<double>(nanoseconds[Choice::winograd]) < kClearly * best()) choice_.plain = Choice::winograd;
  keep(choice_.plain);
  if (baked_) {
    const double correction = static_cast<double>(nanoseconds[Choice::baked]) / baked_->cycles(1);
    baked_from_ = 0;
    for (const int64_t batch : kBatches) {
      if (baked_from_ == 0 && correction * baked_->cycles(batch) < kClearly * best() * static_cast<double>(batch)) baked_from_ = batch;
    }
    if (baked_from_ == 0) baked_ = nullptr;
  }
  choice_.baked_from = baked_ ? baked_from_ : 0, chosen_ = true;
  describe();
}

ConvRange ConvStep::range(int64_t batch, int64_t part, int64_t parts) const {
  const int64_t pixels = batch * args_.shape.out_h * args_.shape.out_w;
  if (split_panels_ && panels_ >= parts && pixels < 1024) {
    const Rows panels = share(panels_, part, parts);
    return {0, pixels, panels.begin, panels.end};
  }
  // Whole image rows where there are enough of them: a tile that crosses a row is slower.
  const int64_t row = args_.shape.out_w, grain = pixels / row >= 4 * parts ? row : 1;
  const Rows rows = share(pixels / grain, part, parts);
  return {rows.begin * grain, rows.end * grain, 0, panels_};
}

// Rows that another thread has made lie in the cache of its core: where the part of an image needs a few, all are asked for at once,
// before the kernel would wait for one after the other. x: see ConvArgs.
void ConvStep::ask_for_borders(const uint8_t* x, const ConvRange& range, int64_t part, int64_t parts) const {
  constexpr int64_t kLines = 32;
  const ConvShape& s = args_.shape;
  const Rows own = share(x_.image.height, part, parts);
  const int64_t top = x_shift_ / args_.x_row, begin = range.pixel_begin / s.out_w * s.stride_h, last = (range.pixel_end - 1) / s.out_w * s.stride_h;
  const auto ask = [&](int64_t from, int64_t to) {
    for (int64_t i = 0; i < kLines && from * args_.x_row + 64 * i < to * args_.x_row; ++i) __builtin_prefetch(x + from * args_.x_row + 64 * i);
  };
  if (part > 0) ask(begin, own.begin + top);
  if (part + 1 < parts) ask(own.end + top, last + (s.kernel_h - 1) * s.dilation_h + 1);
}

void ConvStep::run(const Frame& frame, int64_t part, int64_t parts) const {
  ConvArgs args = args_;
  args.x = frame.codes(x_) - x_shift_;
  if (args.output == ConvOutput::to_float) {
    args.y = frame.writable_floats(y_);
  } else {
    args.y = frame.codes(y_);
    fill_halo(y_.image, frame.codes(y_), share(frame.batch * y_.image.height, part, parts));
  }
  if (args.output == ConvOutput::requantize_add) args.r = frame.codes(residual_);
  args.scratch = frame.scratch + part * frame.scratch_bytes;
  if (use_baked(frame.batch)) {
    baked_->run(args, frame.batch, part, parts, args.scratch);
    return;
  }
  if (way_ == Choice::unpacked && unpacked_.size() > 0) args.packed = unpacked_.data();
  const ConvRange range = this->range(frame.batch, part, parts);
  if (range.pixel_begin >= range.pixel_end || range.panel_begin >= range.panel_end) return;
  if (parts > 1 && frame.batch == 1) ask_for_borders(args.x, range, part, parts);
  if (use_gather()) return gather_->run(args, range);
  use_winograd() ? winograd_->run(args, range) : kernel_->run(args, range);
}

}  // namespace

std::unique_ptr<Step> make_conv_step(const StepContext& context, const PlannedNode& node, const Conv& conv) {
  return std::make_unique<ConvStep>(context, node, conv);
}

}  // namespace tritkit
