// The network after every check of docs/format.md: values with known shapes, scales and zero points, nodes in execution order.
// What a Graph says is true; later stages check nothing again.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <string_view>

namespace tritkit {

enum class DType { f32, u8 };

// A tensor of the network. Rank 2 is [N, C] with height and width 1; rank 4 is [N, C, H, W].
struct Value {
  std::string name;
  DType dtype = DType::f32;
  int rank = 4;
  int64_t channels = 1, height = 1, width = 1;
  float scale = 1;  // u8 only: real value = scale * (q - zero)
  int32_t zero = 0;
  int64_t elements() const { return channels * height * width; }
};

// A window that slides over an image; of convolutions and max pools.
struct Window {
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;
};

struct Quantize {};    // inputs: x f32
struct Dequantize {};  // inputs: x u8

// TernaryQConv, TernaryGroupQConv, QLinearConv and the six Gemms (a 1x1 convolution of 1x1 images). Groups' weights are int8 here.
struct Conv {
  Window window;
  int64_t groups = 1;
  bool ternary = false;
  bool to_float = false;
  std::vector<int8_t> codes;        // [O, C / groups, kh, kw] as in the file; int8: the weights
  std::vector<int8_t> plus, minus;  // ternary: [O] value of code +1 and of code -1
  std::vector<float> w_scale;       // [O]
  std::vector<int32_t> bias;        // [O]
};

struct Add {};  // inputs: a, b u8

struct AveragePool {
  using Run = std::pair<int64_t, int64_t>;  // [begin, end)
  std::vector<Run> rows, cols;
  std::vector<float> count;  // [OH, OW]
};

struct Rescale {};

struct MaxPool {
  Window window;
};

struct Clip {
  uint8_t low = 0, high = 255;
};

struct Pad {
  int64_t channels = 0, top = 0, left = 0;  // before; what comes after follows from the shapes
};

struct Slice {
  std::array<int64_t, 3> start{}, step{1, 1, 1};  // channels, height, width
};

struct Concat {
  int axis = 1;  // 1 channels, 2 height, 3 width
};

struct Reshape {};

struct FloatConv {
  Window window;
  int64_t groups = 1;
  std::vector<float> weights, bias;  // [O, C / groups, kh, kw], [O]
};

struct FloatClip {
  float low = 0, high = 0;  // Relu: [0, inf)
};

using Spec = std::variant<Quantize, Dequantize, Conv, Add, AveragePool, Rescale, MaxPool, Clip, Pad, Slice, Concat, Reshape,
                          FloatConv, FloatClip>;

struct Node {
  std::string name, op;
  std::vector<int> inputs;  // indices into Graph::values
  int output = -1;
  Spec spec;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<int> inputs, outputs;
  std::vector<std::pair<std::string, std::string>> metadata;
  int64_t file_bytes = 0;
  int64_t weight_bytes = 0;  // decoded, of all nodes
};

// Reads and checks a whole file.
Graph read_graph(std::string_view file);

}  // namespace tritkit
