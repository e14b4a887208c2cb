// QAveragePool and MaxPool.
#include <algorithm>
#include <cmath>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

void expect_image(const Value& x) {
  if (x.rank != 4) bad_model("its input " + quoted(x.name) + " has rank " + std::to_string(x.rank) + ", allowed is 4");
}

// A 0/1 matrix [outputs, size] of which every row is one unbroken run of ones.
std::vector<AveragePool::Run> read_runs(const OnnxTensor& tensor, int64_t size) {
  if (tensor.dims.size() != 2 || tensor.dims[0] < 1 || tensor.dims[1] != size) {
    bad_model("matrix " + quoted(tensor.name) + " has shape " + shape_text(tensor.dims) + ", expected is [outputs, " + std::to_string(size) + "]");
  }
  const std::vector<float> ones = float_values(tensor);
  std::vector<AveragePool::Run> runs;
  for (int64_t row = 0; row < tensor.dims[0]; ++row) {
    const float* line = &ones[row * size];
    int64_t begin = 0;
    while (begin < size && line[begin] == 0) ++begin;
    int64_t end = begin;
    while (end < size && line[end] == 1) ++end;
    for (int64_t i = end; i < size; ++i) {
      if (line[i] != 0) end = begin;
    }
    if (begin == end) bad_model("row " + std::to_string(row) + " of " + quoted(tensor.name) + " is not one unbroken run of ones");
    runs.push_back({begin, end});
  }
  return runs;
}

int64_t longest(const std::vector<AveragePool::Run>& runs) {
  int64_t length = 0;
  for (const auto& run : runs) length = std::max(length, run.second - run.first);
  return length;
}

// Whether each position of the window has a tap inside the image: a maximum of nothing has no value.
void check_taps(int64_t size, int64_t outputs, int64_t before, int64_t kernel, int64_t stride, int64_t dilation) {
  const auto first_pixel = [&](int64_t out) { return out * stride - before; };
  bool inside = first_pixel(outputs - 1) < size;
  for (int64_t out = 0; out < outputs && first_pixel(out) < 0; ++out) {
    const int64_t tap = (-first_pixel(out) + dilation - 1) / dilation;  // the first that is not left of the image
    inside = inside && tap < kernel && first_pixel(out) + tap * dilation < size;
  }
  if (!inside) bad_model("its window lies wholly in the padding at some place");
}

}  // namespace

void read_average_pool(const NodeReader& node) {
  node.expect(8, {});
  const Value x = node.quantized(0);
  expect_image(x);
  AveragePool pool;
  pool.rows = read_runs(node.constant(3), x.height);
  pool.cols = read_runs(node.constant(4), x.width);
  pool.count = float_values(node.constant(5));
  Value y = x;
  y.height = static_cast<int64_t>(pool.rows.size());
  y.width = static_cast<int64_t>(pool.cols.size());
  y.scale = node.scale(6);
  y.zero = node.zero(7);
  if (node.constant(5).dims != std::vector<int64_t>{y.height, y.width}) bad_model("its count does not have the shape of its output");
  if (longest(pool.rows) * longest(pool.cols) > max_weights_per_output) {
    bad_model("its window has more than 65792 pixels, beyond which a float32 sum is not exact");
  }
  for (float count : pool.count) {
    if (!std::isfinite(count) || count <= 0) bad_model("its count holds a number that is not finite and above 0");
    check_multiplier((x.scale / y.scale) / count);
  }
  node.emit({node.value_index(0)}, y, std::move(pool));
}

void read_max_pool(const NodeReader& node) {
  node.expect(1, {"kernel_shape", "strides", "pads", "dilations", "ceil_mode", "auto_pad", "storage_order"});
  node.expect_integer("ceil_mode", 0);
  node.expect_integer("storage_order", 0);
  Value y = node.value(0, DType::u8);
  expect_image(y);
  const std::vector<int64_t> kernel = node.ints("kernel_shape", 2);
  const Window w = node.window(kernel[0], kernel[1]);
  const Value x = y;
  y.height = windowed(x.height, w.top, w.bottom, w.kernel_h, w.stride_h, w.dilation_h);
  y.width = windowed(x.width, w.left, w.right, w.kernel_w, w.stride_w, w.dilation_w);
  check_shape(y);
  check_taps(x.height, y.height, w.top, w.kernel_h, w.stride_h, w.dilation_h);
  check_taps(x.width, y.width, w.left, w.kernel_w, w.stride_w, w.dilation_w);
  node.emit({node.value_index(0)}, y, MaxPool{w});
}

}  // namespace tritkit
