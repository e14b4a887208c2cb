// The fields of an ONNX file that the engine needs, as views into its bytes (which must outlive them). Function bodies and doc
// strings are skipped: an operation means what docs/format.md says. No recursion: subgraphs are never entered.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace tritkit {

struct OnnxTensor {
  enum Type : int64_t { float32 = 1, uint8 = 2, int8 = 3, int32 = 6, int64 = 7 };
  std::string_view name;
  int64_t type = 0;
  std::vector<int64_t> dims;
  bool has_raw = false;
  bool external = false;
  std::string_view raw;                     // little-endian, dense
  std::vector<std::string_view> int32_data;  // packed chunks of the typed fields
  std::vector<std::string_view> int64_data;
  std::vector<std::string_view> float_data;
  std::vector<int64_t> loose_ints;  // the same unpacked, one field an element
  std::vector<float> loose_floats;
};

struct OnnxAttribute {
  std::string_view name;
  bool has_int = false, has_float = false, has_string = false;
  int64_t i = 0;
  float f = 0;
  std::string_view s;
  std::vector<int64_t> ints;
  bool other = false;  // a tensor, a graph, strings ...
};

struct OnnxNode {
  std::string_view name, op, domain;
  std::vector<std::string_view> inputs, outputs;
  std::vector<OnnxAttribute> attributes;
};

struct OnnxDim {
  bool fixed = false;
  int64_t value = 0;
};

struct OnnxValue {
  std::string_view name;
  bool is_tensor = false, has_shape = false;
  int64_t type = 0;
  std::vector<OnnxDim> dims;
};

struct OnnxModel {
  int64_t ir_version = 0;
  std::vector<std::pair<std::string_view, int64_t>> opsets;  // domain, version
  std::vector<std::pair<std::string_view, std::string_view>> metadata;
  bool has_graph = false;
  std::vector<OnnxNode> nodes;
  std::vector<OnnxTensor> initializers;
  std::vector<OnnxValue> inputs, outputs;
};

OnnxModel read_onnx(std::string_view bytes);

}  // namespace tritkit
