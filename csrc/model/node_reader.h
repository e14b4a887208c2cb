// What the readers of single operations see: inputs, initializers and attributes of one node, each checked when asked for.
// Errors need not name the node; read_graph puts that in front.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/graph.h"
#include "model/onnx.h"

namespace tritkit {

struct Symbols {
  std::unordered_map<std::string_view, int> values;  // index into Graph::values
  std::unordered_map<std::string_view, const OnnxTensor*> constants;
};

class NodeReader {
 public:
  NodeReader(const OnnxNode& node, const Symbols& symbols, Graph* graph) : node_(node), symbols_(symbols), graph_(graph) {}

  void expect(size_t inputs, std::initializer_list<std::string_view> attributes) const;
  size_t input_count() const { return node_.inputs.size(); }
  bool has_input(size_t index) const { return index < node_.inputs.size() && !node_.inputs[index].empty(); }

  int value_index(size_t index) const;
  const Value& value(size_t index) const;  // of either type
  const Value& value(size_t index, DType dtype) const;  // a tensor that a node or the caller computes
  const Value& quantized(size_t index) const;           // u8 x, its scale and its zero point at index, + 1, + 2
  const OnnxTensor& constant(size_t index) const;
  float scale(size_t index) const;    // scalar float32, finite, > 0
  int32_t zero(size_t index) const;   // scalar uint8
  uint8_t scalar_u8(size_t index) const;
  std::vector<float> scales(size_t index, int64_t count) const;
  std::vector<int32_t> biases(size_t index, int64_t count) const;

  std::vector<int64_t> ints(std::string_view name, size_t count) const;  // must be there
  std::vector<int64_t> ints(std::string_view name, std::vector<int64_t> absent) const;
  int64_t integer(std::string_view name, int64_t absent) const;
  std::string_view text(std::string_view name, std::string_view absent) const;
  void expect_integer(std::string_view name, int64_t allowed) const;
  void expect_one(std::string_view name) const;  // a float attribute that is 1 or absent
  void expect_text(std::string_view name, std::string_view allowed) const;
  Window window(int64_t kernel_h, int64_t kernel_w) const;  // strides, pads, dilations, auto_pad

  // Adds the node with its one output; the output's shape is checked against what the engine can address.
  void emit(std::vector<int> inputs, Value output, Spec spec) const;

 private:
  const OnnxAttribute* find(std::string_view name) const;
  const OnnxNode& node_;
  const Symbols& symbols_;
  Graph* graph_;
};

constexpr int64_t max_weights_per_output = 65792;  // K of docs/format.md: an int32 sum never wraps

// Size of an axis after a window slid over it; refuses an empty result.
int64_t windowed(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation);

// A ratio of scales: finite and below 1e20, so that no product with it is infinite.
void check_multiplier(float multiplier);

void check_shape(const Value& value);

// The readers, one file a family.
void read_quantize(const NodeReader& node);
void read_dequantize(const NodeReader& node);
void read_add(const NodeReader& node);
void read_rescale(const NodeReader& node);
void read_ternary_conv(const NodeReader& node);
void read_qlinear_conv(const NodeReader& node);
void read_ternary_qgemm(const NodeReader& node);
void read_ternary_gemm(const NodeReader& node);
void read_ternary_group_conv(const NodeReader& node);
void read_ternary_group_qgemm(const NodeReader& node);
void read_ternary_group_gemm(const NodeReader& node);
void read_int8_qgemm(const NodeReader& node);
void read_int8_gemm(const NodeReader& node);
void read_average_pool(const NodeReader& node);
void read_max_pool(const NodeReader& node);
void read_clip(const NodeReader& node);
void read_pad(const NodeReader& node);
void read_slice(const NodeReader& node);
void read_concat(const NodeReader& node);
void read_reshape(const NodeReader& node);
void read_flatten(const NodeReader& node);
void read_float_conv(const NodeReader& node);
void read_float_gemm(const NodeReader& node);
void read_relu(const NodeReader& node);

}  // namespace tritkit
