// QuantizeLinear, DequantizeLinear, QAdd, QRescale, Clip, Relu.
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {

void read_quantize(const NodeReader& node) {
  node.expect(3, {"axis"});
  Value y = node.value(0, DType::f32);
  y.dtype = DType::u8;
  y.scale = node.scale(1);
  y.zero = node.zero(2);
  node.emit({node.value_index(0)}, y, Quantize{});
}

void read_dequantize(const NodeReader& node) {
  node.expect(3, {"axis"});
  Value y = node.quantized(0);
  y.dtype = DType::f32;
  node.emit({node.value_index(0)}, y, Dequantize{});
}

void read_add(const NodeReader& node) {
  node.expect(8, {});
  const Value a = node.quantized(0), b = node.quantized(3);
  Value y = a;
  y.scale = node.scale(6);
  y.zero = node.zero(7);
  if (a.rank != b.rank || a.channels != b.channels || a.height != b.height || a.width != b.width) {
    bad_model("its inputs " + quoted(a.name) + " and " + quoted(b.name) + " have different shapes");
  }
  check_multiplier(a.scale / y.scale);
  check_multiplier(b.scale / y.scale);
  node.emit({node.value_index(0), node.value_index(3)}, y, Add{});
}

void read_rescale(const NodeReader& node) {
  node.expect(5, {});
  Value y = node.quantized(0);
  const float x_scale = y.scale;
  y.scale = node.scale(3);
  y.zero = node.zero(4);
  check_multiplier(x_scale / y.scale);
  node.emit({node.value_index(0)}, y, Rescale{});
}

namespace {

float float_limit(const NodeReader& node, size_t index, float absent) {
  if (!node.has_input(index)) return absent;
  const std::vector<float> values = float_values(node.constant(index));
  if (values.size() != 1 || std::isnan(values[0])) bad_model("the limits of a Clip must be scalars and not NaN");
  return values[0];
}

void read_float_clip(const NodeReader& node) {
  const float infinity = std::numeric_limits<float>::infinity();
  const FloatClip clip{float_limit(node, 1, -infinity), float_limit(node, 2, infinity)};
  if (clip.low > clip.high) bad_model("its lower limit is above its upper limit");
  const Value y = node.value(0, DType::f32);
  node.emit({node.value_index(0)}, y, clip);
}

}  // namespace

void read_clip(const NodeReader& node) {
  const bool full = node.input_count() == 3;
  node.expect(full ? 3 : node.input_count() == 2 ? 2 : 1, {});
  if (!full || !node.has_input(1) || !node.has_input(2)) return read_float_clip(node);
  if (node.constant(1).type == OnnxTensor::float32) return read_float_clip(node);
  const Value y = node.value(0, DType::u8);
  const Clip clip{node.scalar_u8(1), node.scalar_u8(2)};
  if (clip.low > clip.high) {
    bad_model("its lower limit " + std::to_string(clip.low) + " is above its upper limit " + std::to_string(clip.high));
  }
  node.emit({node.value_index(0)}, y, clip);
}

void read_relu(const NodeReader& node) {
  node.expect(1, {});
  const Value y = node.value(0, DType::f32);
  node.emit({node.value_index(0)}, y, FloatClip{0.0f, std::numeric_limits<float>::infinity()});
}

}  // namespace tritkit
