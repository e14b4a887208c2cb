// The steps without weights: each joins a kernel to the places of its tensors.
#include "runtime/steps.h"

#include <algorithm>

#include "kernels/copy/copy.h"
#include "kernels/float32/float32.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"

namespace tritkit {
namespace {

// A step whose result is u8: the work is cut into rows of images, and each part fills the halo around its share of them.
template <typename Kernel>
class CodeStep final : public Step {
 public:
  CodeStep(const Place& y, int64_t height, Kernel kernel) : y_(y), height_(height), kernel_(std::move(kernel)) {}

  void run(const Frame& frame, int64_t part, int64_t parts) const override {
    fill_halo(y_.image, frame.codes(y_), share(frame.batch * y_.image.height, part, parts));
    kernel_(frame, share(frame.batch * height_, part, parts));
  }

 private:
  const Place y_;
  const int64_t height_;  // rows of one image
  const Kernel kernel_;
};

// A step whose result is float32: `units` an image, of the kernel's own kind.
template <typename Kernel>
class FloatStep final : public Step {
 public:
  FloatStep(int64_t units, Kernel kernel) : units_(units), kernel_(std::move(kernel)) {}

  void run(const Frame& frame, int64_t part, int64_t parts) const override {
    kernel_(frame, share(frame.batch * units_, part, parts));
  }

 private:
  const int64_t units_;
  const Kernel kernel_;
};

std::unique_ptr<Step> named(std::unique_ptr<Step> step, const char* kernel) {
  step->info.kernel = kernel;
  return step;
}

template <typename Kernel>
std::unique_ptr<Step> code_step(const Place& y, int64_t height, Kernel kernel) {
  return std::make_unique<CodeStep<Kernel>>(y, height, std::move(kernel));
}

template <typename Kernel>
std::unique_ptr<Step> float_step(int64_t units, Kernel kernel) {
  return std::make_unique<FloatStep<Kernel>>(units, std::move(kernel));
}

void report_nan(const Frame& frame, int64_t image) {
  int64_t seen = frame.nan_image->load();
  while (image >= 0 && (seen < 0 || image < seen) && !frame.nan_image->compare_exchange_weak(seen, image)) {
  }
}

// The rows of x that are pasted into these rows of y.
Rows pasted(const PasteArgs& args, Rows rows) {
  const auto before = [&](int64_t row) {  // rows of x that lie before a row of y
    const int64_t in_image = row % args.y.height - args.top;
    return row / args.y.height * args.x.height + std::min(std::max<int64_t>(in_image, 0), args.x.height);
  };
  return {before(rows.begin), before(rows.end)};
}

// Makes the step for each kind of node.
class Maker {
 public:
  Maker(const StepContext& context, const PlannedNode& node)
      : context_(context),
        node_(node),
        isa_(context.kernels[0]->isa),
        y_(place(node.output)),
        y_value_(context.graph.values[node.output]) {}

  std::unique_ptr<Step> operator()(const Conv& conv) const { return make_conv_step(context_, node_, conv); }

  std::unique_ptr<Step> operator()(const Quantize&) const {
    const QuantizeKernels& kernels = quantize_kernels(isa_);
    const auto run = [x = place(x_index()), y = y_, scale = y_value_.scale, quantize = kernels.quantize](const Frame& frame, Rows rows) {
      report_nan(frame, quantize(y.image, scale, frame.floats(x), frame.codes(y), rows));
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const Dequantize&) const {
    const Place x = place(x_index());
    const QuantizeKernels& kernels = quantize_kernels(isa_);
    const auto run = [x, y = y_, scale = value(x_index()).scale, dequantize = kernels.dequantize](const Frame& frame, Rows rows) {
      dequantize(x.image, scale, frame.codes(x), frame.writable_floats(y), rows);
    };
    return named(float_step(x.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const Add&) const {
    const Place a = place(node_.inputs[0]), b = place(node_.inputs[1]);
    const AddArgs args{a.image, b.image, y_.image, value(node_.inputs[0]).scale / y_value_.scale, value(node_.inputs[1]).scale / y_value_.scale};
    const PointwiseKernels& kernels = pointwise_kernels(isa_);
    const auto run = [a, b, y = y_, args, add = kernels.add](const Frame& frame, Rows rows) {
      add(args, frame.codes(a), frame.codes(b), frame.codes(y), rows);
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const AveragePool& pool) const {
    std::vector<PoolRun> rows, cols;
    for (const auto& run : pool.rows) rows.push_back({run.first, run.second});
    for (const auto& run : pool.cols) cols.push_back({run.first, run.second});
    std::vector<float> multiplier;
    const float ratio = value(x_index()).scale / y_value_.scale;
    for (float count : pool.count) multiplier.push_back(ratio / count);
    const PoolKernels& kernels = pool_kernels(isa_);
    const auto run = [x = place(x_index()), y = y_, rows, cols, multiplier, average = kernels.average_pool](const Frame& frame, Rows range) {
      average({x.image, y.image, rows.data(), cols.data(), multiplier.data()}, frame.codes(x), frame.codes(y), range);
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const Rescale&) const {
    const Place x = place(x_index());
    const RescaleArgs args{x.image, y_.image, value(x_index()).scale / y_value_.scale};
    const PointwiseKernels& kernels = pointwise_kernels(isa_);
    const auto run = [x, y = y_, args, rescale = kernels.rescale](const Frame& frame, Rows rows) {
      rescale(args, frame.codes(x), frame.codes(y), rows);
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const Clip& limits) const {
    const Place x = place(x_index());
    const ClipArgs args{x.image, y_.image, limits.low, limits.high};
    const PointwiseKernels& kernels = pointwise_kernels(isa_);
    const auto run = [x, y = y_, args, clip = kernels.clip](const Frame& frame, Rows rows) {
      clip(args, frame.codes(x), frame.codes(y), rows);
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const MaxPool& pool) const {
    const Place x = place(x_index());
    const Window& w = pool.window;
    const MaxPoolArgs args{x.image, y_.image, w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, w.top, w.left};
    const PoolKernels& kernels = pool_kernels(isa_);
    const auto run = [x, y = y_, args, max_pool = kernels.max_pool](const Frame& frame, Rows rows) {
      max_pool(args, frame.codes(x), frame.codes(y), rows);
    };
    return named(code_step(y_, y_.image.height, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const Pad& pad) const {
    const Place x = place(x_index());
    const PasteArgs args{x.image, y_.image, pad.channels, pad.top, pad.left};
    return code_step(y_, y_.image.height, [x, y = y_, args](const Frame& frame, Rows rows) {
      fill_zero(y.image, frame.codes(y), rows);
      paste(args, frame.codes(x), frame.codes(y), pasted(args, rows));
    });
  }

  std::unique_ptr<Step> operator()(const Slice& s) const {
    const Place x = place(x_index());
    const SliceArgs args{x.image, y_.image, s.start[0], s.start[1], s.start[2], s.step[0], s.step[1], s.step[2]};
    return code_step(y_, y_.image.height, [x, y = y_, args](const Frame& frame, Rows rows) {
      slice(args, frame.codes(x), frame.codes(y), rows);
    });
  }

  std::unique_ptr<Step> operator()(const Concat& concat) const {
    std::vector<std::pair<Place, PasteArgs>> pieces;
    int64_t at = 0;
    for (int input : node_.inputs) {
      const Place x = place(input);
      pieces.push_back({x, {x.image, y_.image, concat.axis == 1 ? at : 0, concat.axis == 2 ? at : 0, concat.axis == 3 ? at : 0}});
      at += concat.axis == 1 ? x.image.channels : concat.axis == 2 ? x.image.height : x.image.width;
    }
    return code_step(y_, 1, [y = y_, pieces](const Frame& frame, Rows images) {
      for (const auto& [x, args] : pieces) {
        paste(args, frame.codes(x), frame.codes(y), {images.begin * x.image.height, images.end * x.image.height});
      }
    });
  }

  std::unique_ptr<Step> operator()(const Reshape&) const {
    const Place x = place(x_index());
    if (y_value_.dtype == DType::f32) {
      return float_step(y_value_.elements(), [x, y = y_](const Frame& frame, Rows elements) {
        std::copy(frame.floats(x) + elements.begin, frame.floats(x) + elements.end, frame.writable_floats(y) + elements.begin);
      });
    }
    return code_step(y_, 1, [x, y = y_](const Frame& frame, Rows images) {
      reshape(x.image, frame.codes(x), y.image, frame.codes(y), images.begin, images.end);
    });
  }

  std::unique_ptr<Step> operator()(const FloatConv& conv) const {
    const Image x = place(x_index()).image, y = y_.image;
    const Window& w = conv.window;
    FloatConvArgs args{conv.groups, x.channels, x.height, x.width, y.channels, y.height, y.width, w.kernel_h, w.kernel_w,
                       w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, w.top, w.left, nullptr, nullptr};
    const FloatKernels& kernels = float_kernels(isa_);
    const auto run = [from = place(x_index()), to = y_, args, weights = conv.weights, bias = conv.bias,
                      convolve = kernels.conv](const Frame& frame, Rows planes) {
      FloatConvArgs with_weights = args;
      with_weights.weights = weights.data();
      with_weights.bias = bias.data();
      convolve(with_weights, frame.floats(from), frame.writable_floats(to), planes.begin, planes.end);
    };
    return named(float_step(y.channels, run), kernels.isa);
  }

  std::unique_ptr<Step> operator()(const FloatClip& limits) const {
    const FloatKernels& kernels = float_kernels(isa_);
    const auto run = [x = place(x_index()), y = y_, limits, clip = kernels.clip](const Frame& frame, Rows elements) {
      clip(limits.low, limits.high, frame.floats(x), frame.writable_floats(y), elements.begin, elements.end);
    };
    return named(float_step(y_value_.elements(), run), kernels.isa);
  }

 private:
  int x_index() const { return node_.inputs[0]; }
  const Place& place(int index) const { return context_.layout.places[index]; }
  const Value& value(int index) const { return context_.graph.values[index]; }

  const StepContext& context_;
  const PlannedNode& node_;
  const char* const isa_;  // the widest admitted
  const Place& y_;
  const Value& y_value_;
};

// Steps without weights count bytes: those in (a pool reads each several times) and those out.
void describe(const Graph& graph, const PlannedNode& node, Step* step) {
  const Node& first = graph.nodes[node.node];
  step->info.name = first.name;
  step->info.op = first.op;
  if (node.add >= 0) {
    step->info.name += " + " + graph.nodes[node.add].name;
    step->info.op += " + " + graph.nodes[node.add].op;
  }
  step->info.input = graph.values[node.inputs[0]];
  step->info.output = graph.values[node.output];
  if (const FloatConv* conv = std::get_if<FloatConv>(&first.spec)) {
    step->info.weights = step->info.nonzero = static_cast<int64_t>(conv->weights.size());
    step->info.packed_bytes = step->info.weights * 4;
    step->info.macs = step->info.weights * step->info.output.height * step->info.output.width;
  }
  if (step->nanoseconds == 0) step->nanoseconds = (step->info.input.elements() + step->info.output.elements()) / 4 + step->info.macs;
}

}  // namespace

std::unique_ptr<Step> make_step(const StepContext& context, const PlannedNode& node) {
  std::unique_ptr<Step> step = std::visit(Maker(context, node), context.graph.nodes[node.node].spec);
  describe(context.graph, node, step.get());
  return step;
}

}  // namespace tritkit
