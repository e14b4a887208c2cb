#include "model/node_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

constexpr int64_t max_window = 4096;               // kernels, strides, dilations and pads
constexpr int64_t max_image = int64_t{1} << 40;    // elements of one image's activation

template <typename T>
T only(const OnnxTensor& tensor, const std::vector<T>& values) {
  if (values.size() != 1) {
    bad_model("initializer " + quoted(tensor.name) + " has shape " + shape_text(tensor.dims) + ", allowed is a scalar");
  }
  return values[0];
}

void check_scale(float scale, const OnnxTensor& tensor) {
  if (std::isfinite(scale) && scale > 0) return;
  bad_model("scale " + quoted(tensor.name) + " holds " + std::to_string(scale) + ", allowed are finite numbers above 0");
}

int64_t weight_bytes(const Spec& spec) {
  if (const Conv* conv = std::get_if<Conv>(&spec)) return static_cast<int64_t>(conv->codes.size());
  if (const FloatConv* conv = std::get_if<FloatConv>(&spec)) return static_cast<int64_t>(4 * conv->weights.size());
  return 0;
}

void check_vector(const OnnxTensor& tensor, int64_t count) {
  if (tensor.dims == std::vector<int64_t>{count}) return;
  bad_model("initializer " + quoted(tensor.name) + " has shape " + shape_text(tensor.dims) + ", one value an output channel is [" +
            std::to_string(count) + "]");
}

}  // namespace

void NodeReader::expect(size_t inputs, std::initializer_list<std::string_view> attributes) const {
  if (node_.inputs.size() != inputs) {
    bad_model("it has " + std::to_string(node_.inputs.size()) + " inputs, the operation has " + std::to_string(inputs));
  }
  for (const OnnxAttribute& attribute : node_.attributes) {
    if (std::find(attributes.begin(), attributes.end(), attribute.name) == attributes.end()) {
      bad_model("attribute " + quoted(attribute.name) + " is not one that docs/format.md allows here");
    }
  }
}

int NodeReader::value_index(size_t index) const {
  if (index >= node_.inputs.size()) bad_model("input " + std::to_string(index) + " is missing");
  const std::string_view name = node_.inputs[index];
  const auto found = symbols_.values.find(name);
  if (found != symbols_.values.end()) return found->second;
  if (symbols_.constants.count(name)) {
    bad_model("input " + quoted(name) + " is an initializer where a computed tensor is expected");
  }
  bad_model("input " + quoted(name) + " is not computed before this node: the graph has a cycle, is not sorted, or lacks it");
}

const Value& NodeReader::value(size_t index) const { return graph_->values[value_index(index)]; }

const Value& NodeReader::value(size_t index, DType dtype) const {
  const Value& value = this->value(index);
  if (value.dtype != dtype) {
    bad_model("input " + quoted(value.name) + (dtype == DType::u8 ? " is float32, allowed is uint8" : " is uint8, allowed is float32"));
  }
  return value;
}

const Value& NodeReader::quantized(size_t index) const {
  const Value& x = value(index, DType::u8);
  if (scale(index + 1) != x.scale || zero(index + 2) != x.zero) {
    bad_model("the scale or zero point given for " + quoted(x.name) + " differs from the one it was computed with (" +
              std::to_string(x.scale) + ", " + std::to_string(x.zero) + "); a tensor has one of each");
  }
  return x;
}

const OnnxTensor& NodeReader::constant(size_t index) const {
  if (index >= node_.inputs.size()) bad_model("input " + std::to_string(index) + " is missing");
  const auto found = symbols_.constants.find(node_.inputs[index]);
  if (found == symbols_.constants.end()) bad_model("input " + quoted(node_.inputs[index]) + " must be an initializer");
  return *found->second;
}

float NodeReader::scale(size_t index) const {
  const OnnxTensor& tensor = constant(index);
  const float value = only(tensor, float_values(tensor));
  check_scale(value, tensor);
  return value;
}

uint8_t NodeReader::scalar_u8(size_t index) const {
  const OnnxTensor& tensor = constant(index);
  return only(tensor, uint8_values(tensor));
}

int32_t NodeReader::zero(size_t index) const { return scalar_u8(index); }

std::vector<float> NodeReader::scales(size_t index, int64_t count) const {
  const OnnxTensor& tensor = constant(index);
  check_vector(tensor, count);
  std::vector<float> values = float_values(tensor);
  for (float value : values) check_scale(value, tensor);
  return values;
}

std::vector<int32_t> NodeReader::biases(size_t index, int64_t count) const {
  const OnnxTensor& tensor = constant(index);
  check_vector(tensor, count);
  std::vector<int32_t> values = int32_values(tensor);
  for (int32_t value : values) {
    if (value < -(1 << 30) || value > 1 << 30) {
      bad_model("bias " + quoted(tensor.name) + " holds " + std::to_string(value) + ", allowed are -2^30 to 2^30");
    }
  }
  return values;
}

const OnnxAttribute* NodeReader::find(std::string_view name) const {
  const OnnxAttribute* result = nullptr;
  for (const OnnxAttribute& attribute : node_.attributes) {
    if (attribute.name != name) continue;
    if (result || attribute.other) bad_model("attribute " + quoted(name) + " is given twice or has the wrong type");
    result = &attribute;
  }
  return result;
}

std::vector<int64_t> NodeReader::ints(std::string_view name, size_t count) const {
  const OnnxAttribute* attribute = find(name);
  if (!attribute) bad_model("attribute " + quoted(name) + " is missing");
  if (attribute->ints.size() != count || attribute->has_int || attribute->has_float || attribute->has_string) {
    bad_model("attribute " + quoted(name) + " must be " + std::to_string(count) + " integers");
  }
  return attribute->ints;
}

std::vector<int64_t> NodeReader::ints(std::string_view name, std::vector<int64_t> absent) const {
  return find(name) ? ints(name, absent.size()) : absent;
}

int64_t NodeReader::integer(std::string_view name, int64_t absent) const {
  const OnnxAttribute* attribute = find(name);
  if (!attribute) return absent;
  if (attribute->has_float || attribute->has_string || !attribute->ints.empty()) {
    bad_model("attribute " + quoted(name) + " must be one integer");
  }
  return attribute->i;  // a writer may leave out the field where it is 0
}

std::string_view NodeReader::text(std::string_view name, std::string_view absent) const {
  const OnnxAttribute* attribute = find(name);
  if (!attribute) return absent;
  if (attribute->has_int || attribute->has_float || !attribute->ints.empty()) bad_model("attribute " + quoted(name) + " must be a text");
  return attribute->s;
}

void NodeReader::expect_integer(std::string_view name, int64_t allowed) const {
  const int64_t given = integer(name, allowed);
  if (given == allowed) return;
  unsupported("attribute " + quoted(name) + " is " + std::to_string(given) + ", this engine runs " + std::to_string(allowed) +
              "; run this file with ONNX Runtime");
}

void NodeReader::expect_one(std::string_view name) const {
  const OnnxAttribute* attribute = find(name);
  if (!attribute || (attribute->has_float && attribute->f == 1.0f)) return;
  unsupported("attribute " + quoted(name) + " is not 1.0; run this file with ONNX Runtime");
}

void NodeReader::expect_text(std::string_view name, std::string_view allowed) const {
  const std::string_view given = text(name, allowed);
  if (given == allowed) return;
  unsupported("attribute " + quoted(name) + " is " + quoted(given) + ", this engine runs " + quoted(allowed) +
              "; run this file with ONNX Runtime");
}

Window NodeReader::window(int64_t kernel_h, int64_t kernel_w) const {
  expect_text("auto_pad", "NOTSET");
  const auto strides = ints("strides", std::vector<int64_t>{1, 1}), dilations = ints("dilations", std::vector<int64_t>{1, 1});
  const auto pads = ints("pads", std::vector<int64_t>{0, 0, 0, 0});
  for (int64_t size : {kernel_h, kernel_w, strides[0], strides[1], dilations[0], dilations[1]}) {
    if (size < 1 || size > max_window) bad_model("kernel sizes, strides and dilations must be 1 to 4096, given is " + std::to_string(size));
  }
  for (int64_t pad : pads) {
    if (pad < 0 || pad > max_window) bad_model("pads must be 0 to 4096, given is " + std::to_string(pad));
  }
  return {kernel_h, kernel_w, strides[0], strides[1], dilations[0], dilations[1], pads[0], pads[1], pads[2], pads[3]};
}

void NodeReader::emit(std::vector<int> inputs, Value output, Spec spec) const {
  graph_->weight_bytes += weight_bytes(spec);
  if (graph_->weight_bytes > 16 * graph_->file_bytes + (int64_t{1} << 26)) {
    bad_model("the nodes share weights so often that they need far more memory than the file has bytes");
  }
  output.name = std::string(node_.outputs[0]);
  check_shape(output);
  graph_->values.push_back(std::move(output));
  graph_->nodes.push_back({std::string(node_.name), std::string(node_.op), std::move(inputs),
                           static_cast<int>(graph_->values.size()) - 1, std::move(spec)});
}

int64_t windowed(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t room = size + before + after - (dilation * (kernel - 1) + 1);
  if (room < 0) bad_model("its window is larger than the padded image");
  return room / stride + 1;
}

void check_multiplier(float multiplier) {
  if (multiplier < 1e20f) return;
  bad_model("its scales differ by more than 10^20, which no quantized network does");
}

void check_shape(const Value& value) {
  int64_t elements = 1;
  for (int64_t dim : {value.channels, value.height, value.width}) {
    if (dim < 1) bad_model("tensor " + quoted(value.name) + " is empty");
    if (dim > max_image / elements) {
      bad_model("tensor " + quoted(value.name) + " has more than 2^40 elements an image, which this engine does not address");
    }
    elements *= dim;
  }
}

}  // namespace tritkit
