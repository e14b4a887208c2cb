// Conv and Gemm kept in float32 by policy.
#include <cmath>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

std::vector<float> finite_values(const OnnxTensor& tensor) {
  std::vector<float> values = float_values(tensor);
  for (float value : values) {
    if (!std::isfinite(value)) bad_model("initializer " + quoted(tensor.name) + " holds a number that is not finite");
  }
  return values;
}

std::vector<float> read_bias(const NodeReader& node, int64_t outputs) {
  std::vector<float> bias = finite_values(node.constant(2));
  if (static_cast<int64_t>(bias.size()) != outputs || node.constant(2).dims.size() != 1) {
    bad_model("its bias must have the shape [" + std::to_string(outputs) + "]");
  }
  return bias;
}

std::vector<int64_t> weight_dims(const NodeReader& node, size_t rank) {
  const std::vector<int64_t>& dims = node.constant(1).dims;
  if (dims.size() != rank) bad_model("its weights have shape " + shape_text(dims) + ", expected is rank " + std::to_string(rank));
  for (int64_t dim : dims) {
    if (dim < 1 || dim > INT32_MAX) bad_model("its weights have shape " + shape_text(dims) + "; no size may be below 1");
  }
  return dims;
}

void emit(const NodeReader& node, const std::vector<int64_t>& dims, FloatConv conv) {
  const Value x = node.value(0, DType::f32);
  if (x.rank != static_cast<int>(dims.size()) || conv.groups < 1 || conv.groups > dims[0] || dims[0] % conv.groups != 0 ||
      checked_mul(dims[1], conv.groups) != x.channels) {
    bad_model("its weights of shape " + shape_text(dims) + " do not fit its input " + quoted(x.name) + " of " + std::to_string(x.channels) +
              " channels");
  }
  conv.weights = finite_values(node.constant(1));
  conv.bias = read_bias(node, dims[0]);
  const Window& w = conv.window;
  Value y = x;
  y.channels = dims[0];
  y.height = windowed(x.height, w.top, w.bottom, w.kernel_h, w.stride_h, w.dilation_h);
  y.width = windowed(x.width, w.left, w.right, w.kernel_w, w.stride_w, w.dilation_w);
  node.emit({node.value_index(0)}, y, std::move(conv));
}

}  // namespace

void read_float_conv(const NodeReader& node) {
  node.expect(3, {"kernel_shape", "strides", "pads", "dilations", "group", "auto_pad"});
  const std::vector<int64_t> dims = weight_dims(node, 4);
  const std::vector<int64_t> kernel{dims[2], dims[3]};
  if (node.ints("kernel_shape", kernel) != kernel) bad_model("its kernel_shape differs from the shape of its weights");
  FloatConv conv;
  conv.window = node.window(dims[2], dims[3]);
  conv.groups = node.integer("group", 1);
  emit(node, dims, std::move(conv));
}

void read_float_gemm(const NodeReader& node) {
  node.expect(3, {"transB", "transA", "alpha", "beta"});
  if (node.integer("transB", 0) != 1) {
    unsupported("attribute 'transB' is not 1, so its weights are not [outputs, inputs]; run this file with ONNX Runtime");
  }
  node.expect_integer("transA", 0);
  node.expect_one("alpha");
  node.expect_one("beta");
  emit(node, weight_dims(node, 2), FloatConv{});
}

}  // namespace tritkit
