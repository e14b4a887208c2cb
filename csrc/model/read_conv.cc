// TernaryQConv, TernaryGroupQConv, QLinearConv and the six Gemms.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

constexpr int max_weight = 64;  // 255 * 64 * 2 < 2^15: no engine saturates

// Output channels, input channels of a group, kernel height and width.
struct WeightShape {
  int64_t outputs, channels, kernel_h, kernel_w;
  int64_t inputs() const { return channels * kernel_h * kernel_w; }
};

WeightShape check_weight_shape(const std::vector<int64_t>& dims) {
  int64_t inputs = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 1 || dims[i] > INT32_MAX) bad_model("its weights have the shape " + shape_text(dims) + "; no size may be below 1");
    if (i > 0) inputs = checked_mul(inputs, dims[i]);
  }
  if (inputs > max_weights_per_output) {
    bad_model("it has " + std::to_string(inputs) + " weights an output, allowed are 65792, beyond which an int32 sum could wrap");
  }
  return {dims[0], dims[1], dims.size() == 4 ? dims[2] : 1, dims.size() == 4 ? dims[3] : 1};
}

// Two bits a code, the first in the lowest; returns -1, 0, 1.
std::vector<int8_t> unpack_codes(const OnnxTensor& tensor, const WeightShape& shape) {
  const int64_t inputs = shape.inputs(), row = (inputs + 3) / 4;
  if (tensor.dims != std::vector<int64_t>{shape.outputs, row}) {
    bad_model("initializer " + quoted(tensor.name) + " has shape " + shape_text(tensor.dims) + ", w_shape asks for " +
              shape_text({shape.outputs, row}));
  }
  const std::vector<uint8_t> bytes = uint8_values(tensor);
  std::vector<int8_t> codes(static_cast<size_t>(checked_mul(shape.outputs, inputs)));
  uint8_t meaningless = 0;
  for (int64_t o = 0; o < shape.outputs; ++o) {
    const uint8_t* const from = &bytes[o * row];
    int8_t* const to = &codes[o * inputs];
    for (int64_t i = 0; i < row; ++i) meaningless |= from[i] >> 1 & ~from[i] & 0x55;
    for (int64_t k = 0; k < inputs; k += 4) {
      const uint32_t byte = from[k / 4], fields = (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303;
      const uint32_t four = fields | (fields >> 1 & 0x01010101) * 0xFE;  // 3 to 255, that is -1
      std::memcpy(to + k, &four, static_cast<size_t>(std::min<int64_t>(4, inputs - k)));
    }
    if (inputs % 4 != 0 && from[row - 1] >> inputs % 4 * 2 != 0) {
      bad_model("initializer " + quoted(tensor.name) + " has an unused code at the end of a row that is not 0");
    }
  }
  if (meaningless) bad_model("initializer " + quoted(tensor.name) + " holds the code 10, which means nothing");
  return codes;
}

void read_codebook(const OnnxTensor& tensor, const WeightShape& shape, Conv* conv) {
  if (tensor.dims != std::vector<int64_t>{shape.outputs, 4}) {
    bad_model("codebook " + quoted(tensor.name) + " has shape " + shape_text(tensor.dims) + ", expected is " + shape_text({shape.outputs, 4}));
  }
  const std::vector<int8_t> book = int8_values(tensor);
  const int64_t inputs = shape.inputs();
  for (int64_t o = 0; o < shape.outputs; ++o) {
    const int8_t* row = &book[o * 4];
    const auto codes = conv->codes.begin() + o * inputs;
    const bool used = std::any_of(codes, codes + inputs, [](int8_t code) { return code != 0; });
    const bool sound = row[0] == 0 && row[2] == 0 && row[1] >= 1 && row[1] <= max_weight && row[3] <= -1 && row[3] >= -max_weight;
    if (used && !sound) {
      bad_model("codebook " + quoted(tensor.name) + " of output channel " + std::to_string(o) + " is not {0, p, 0, -n} with p and n from 1 to 64");
    }
    conv->plus.push_back(sound ? row[1] : int8_t{1});
    conv->minus.push_back(sound ? row[3] : int8_t{-1});
  }
}

// The multipliers 1 to 64 of one sign, [O, G, kh, kw] (or [O, G] for a linear layer).
std::vector<int8_t> read_multipliers(const OnnxTensor& tensor, const WeightShape& shape, int64_t groups, size_t rank) {
  std::vector<int64_t> dims{shape.outputs, groups, shape.kernel_h, shape.kernel_w};
  dims.resize(rank);
  if (tensor.dims != dims) {
    bad_model("multipliers " + quoted(tensor.name) + " have shape " + shape_text(tensor.dims) + ", w_shape and group_size ask for " +
              shape_text(dims));
  }
  std::vector<int8_t> values = int8_values(tensor);
  for (int8_t value : values) {
    if (value < 1 || value > max_weight) {
      bad_model("multipliers " + quoted(tensor.name) + " hold " + std::to_string(value) + ", allowed are 1 to 64");
    }
  }
  return values;
}

// Codes of groups become the int8 weights that they stand for: a kernel has room for one p and n an output channel.
void expand_groups(const WeightShape& shape, int64_t group_size, const std::vector<int8_t>& plus, const std::vector<int8_t>& minus,
                   std::vector<int8_t>* codes) {
  const int64_t area = shape.kernel_h * shape.kernel_w, groups = (shape.channels - 1) / group_size + 1;
  for (int64_t o = 0; o < shape.outputs; ++o) {
    for (int64_t c = 0; c < shape.channels; ++c) {
      int8_t* const code = &(*codes)[(o * shape.channels + c) * area];
      const int64_t group = (o * groups + c / group_size) * area;
      for (int64_t t = 0; t < area; ++t) {
        code[t] = static_cast<int8_t>(code[t] > 0 ? plus[group + t] : code[t] < 0 ? -minus[group + t] : 0);
      }
    }
  }
}

void read_int8_weights(const OnnxTensor& tensor, Conv* conv) {
  conv->codes = int8_values(tensor);
  for (int8_t w : conv->codes) {
    if (w < -max_weight || w > max_weight) {
      bad_model("initializer " + quoted(tensor.name) + " holds the weight " + std::to_string(w) + ", allowed are -64 to 64");
    }
  }
}

void check_multipliers(const Conv& conv, float x_scale, float y_scale) {
  for (float w_scale : conv.w_scale) check_multiplier((x_scale * w_scale) / y_scale);
}

// Output shape and scale, and the checks that all kinds share. The weights are read already.
void finish(const NodeReader& node, const WeightShape& shape, size_t y_scale, Conv conv) {
  const Value x = node.quantized(0);
  Value y = x;
  y.channels = shape.outputs;
  if (conv.groups < 1 || conv.groups > shape.outputs || shape.outputs % conv.groups != 0 ||
      checked_mul(shape.channels, conv.groups) != x.channels) {
    bad_model("its weights take " + std::to_string(conv.groups) + " groups of " + std::to_string(shape.channels) + " channels for " +
              std::to_string(shape.outputs) + " outputs, its input " + quoted(x.name) + " has " + std::to_string(x.channels));
  }
  const Window& w = conv.window;
  y.height = windowed(x.height, w.top, w.bottom, w.kernel_h, w.stride_h, w.dilation_h);
  y.width = windowed(x.width, w.left, w.right, w.kernel_w, w.stride_w, w.dilation_w);
  if (conv.to_float) {
    y.dtype = DType::f32;
  } else {
    y.scale = node.scale(y_scale);
    y.zero = node.zero(y_scale + 1);
  }
  check_multipliers(conv, x.scale, conv.to_float ? 1.0f : y.scale);
  node.emit({node.value_index(0)}, y, std::move(conv));
}

void expect_rank(const NodeReader& node, int rank) {
  const Value& x = node.value(0, DType::u8);
  if (x.rank != rank) {
    bad_model("its input " + quoted(x.name) + " has rank " + std::to_string(x.rank) + ", allowed is " + std::to_string(rank));
  }
}

void read_ternary(const NodeReader& node, const WeightShape& shape, Conv* conv) {
  conv->ternary = true;
  conv->codes = unpack_codes(node.constant(3), shape);
  read_codebook(node.constant(4), shape, conv);
  conv->w_scale = node.scales(5, shape.outputs);
  conv->bias = node.biases(6, shape.outputs);
}

// The weights end as int8, which every kernel runs.
void read_ternary_groups(const NodeReader& node, const WeightShape& shape, size_t rank, Conv* conv) {
  const int64_t size = node.integer("group_size", 0);
  if (size < 1 || size > shape.channels) {
    bad_model("its group_size is " + std::to_string(size) + ", allowed are 1 to its " + std::to_string(shape.channels) + " input channels");
  }
  const int64_t groups = (shape.channels - 1) / size + 1;
  conv->codes = unpack_codes(node.constant(3), shape);
  const std::vector<int8_t> plus = read_multipliers(node.constant(4), shape, groups, rank);
  const std::vector<int8_t> minus = read_multipliers(node.constant(5), shape, groups, rank);
  expand_groups(shape, size, plus, minus, &conv->codes);
  conv->w_scale = node.scales(6, shape.outputs);
  conv->bias = node.biases(7, shape.outputs);
}

void read_ternary_linear(const NodeReader& node, bool to_float) {
  node.expect(to_float ? 7 : 9, {"w_shape"});
  expect_rank(node, 2);
  const WeightShape shape = check_weight_shape(node.ints("w_shape", 2));
  Conv conv;
  conv.to_float = to_float;
  read_ternary(node, shape, &conv);
  finish(node, shape, 7, std::move(conv));
}

void read_ternary_group_linear(const NodeReader& node, bool to_float) {
  node.expect(to_float ? 8 : 10, {"w_shape", "group_size"});
  expect_rank(node, 2);
  const WeightShape shape = check_weight_shape(node.ints("w_shape", 2));
  Conv conv;
  conv.to_float = to_float;
  read_ternary_groups(node, shape, 2, &conv);
  finish(node, shape, 8, std::move(conv));
}

WeightShape weight_tensor_shape(const OnnxTensor& tensor, size_t rank) {
  if (tensor.dims.size() == rank) return check_weight_shape(tensor.dims);
  bad_model("weights " + quoted(tensor.name) + " have shape " + shape_text(tensor.dims) + ", expected is rank " + std::to_string(rank));
}

void read_int8_linear(const NodeReader& node, bool to_float) {
  node.expect(to_float ? 6 : 8, {});
  expect_rank(node, 2);
  const WeightShape shape = weight_tensor_shape(node.constant(3), 2);
  Conv conv;
  conv.to_float = to_float;
  read_int8_weights(node.constant(3), &conv);
  conv.w_scale = node.scales(4, shape.outputs);
  conv.bias = node.biases(5, shape.outputs);
  finish(node, shape, 6, std::move(conv));
}

}  // namespace

void read_ternary_conv(const NodeReader& node) {
  node.expect(9, {"w_shape", "strides", "pads", "dilations", "group"});
  expect_rank(node, 4);
  const WeightShape shape = check_weight_shape(node.ints("w_shape", 4));
  Conv conv;
  conv.window = node.window(shape.kernel_h, shape.kernel_w);
  conv.groups = node.integer("group", 1);
  read_ternary(node, shape, &conv);
  finish(node, shape, 7, std::move(conv));
}

void read_ternary_group_conv(const NodeReader& node) {
  node.expect(10, {"w_shape", "group_size", "strides", "pads", "dilations", "group"});
  expect_rank(node, 4);
  const WeightShape shape = check_weight_shape(node.ints("w_shape", 4));
  Conv conv;
  conv.window = node.window(shape.kernel_h, shape.kernel_w);
  conv.groups = node.integer("group", 1);
  read_ternary_groups(node, shape, 4, &conv);
  finish(node, shape, 8, std::move(conv));
}

void read_qlinear_conv(const NodeReader& node) {
  node.expect(9, {"kernel_shape", "strides", "pads", "dilations", "group", "auto_pad"});
  expect_rank(node, 4);
  const WeightShape shape = weight_tensor_shape(node.constant(3), 4);
  const std::vector<int64_t> kernel{shape.kernel_h, shape.kernel_w};
  if (node.ints("kernel_shape", kernel) != kernel) bad_model("its kernel_shape differs from the shape of its weights");
  for (int8_t zero : int8_values(node.constant(5))) {
    if (zero != 0) bad_model("the zero point of its weights is not 0");
  }
  Conv conv;
  conv.window = node.window(shape.kernel_h, shape.kernel_w);
  conv.groups = node.integer("group", 1);
  read_int8_weights(node.constant(3), &conv);
  conv.w_scale = node.scales(4, shape.outputs);
  conv.bias = node.biases(8, shape.outputs);
  finish(node, shape, 6, std::move(conv));
}

void read_ternary_qgemm(const NodeReader& node) { read_ternary_linear(node, false); }
void read_ternary_gemm(const NodeReader& node) { read_ternary_linear(node, true); }
void read_ternary_group_qgemm(const NodeReader& node) { read_ternary_group_linear(node, false); }
void read_ternary_group_gemm(const NodeReader& node) { read_ternary_group_linear(node, true); }
void read_int8_qgemm(const NodeReader& node) { read_int8_linear(node, false); }
void read_int8_gemm(const NodeReader& node) { read_int8_linear(node, true); }

}  // namespace tritkit
