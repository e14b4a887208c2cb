// Pad, Slice, Concat, Reshape and Flatten: they move codes and change none.
#include <algorithm>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

std::vector<int64_t> shape_of(const Value& value) {  // without the batch
  if (value.rank == 2) return {value.channels};
  return {value.channels, value.height, value.width};
}

void set_shape(Value* value, const std::vector<int64_t>& shape) {
  value->rank = static_cast<int>(shape.size()) + 1;
  value->channels = shape[0];
  value->height = shape.size() == 3 ? shape[1] : 1;
  value->width = shape.size() == 3 ? shape[2] : 1;
}

int64_t checked_axis(int64_t axis, int rank) {
  const int64_t positive = axis < 0 ? axis + rank : axis;
  if (positive < 1 || positive >= rank) {
    bad_model("axis " + std::to_string(axis) + " is the batch or beyond the rank " + std::to_string(rank));
  }
  return positive;
}

void emit_reshaped(const NodeReader& node, Value value, const std::vector<int64_t>& shape) {
  const int64_t elements = value.elements();
  set_shape(&value, shape);
  check_shape(value);
  if (value.elements() != elements) {
    bad_model("it gives " + std::to_string(value.elements()) + " elements an image, its input has " + std::to_string(elements));
  }
  node.emit({node.value_index(0)}, value, Reshape{});
}

}  // namespace

void read_pad(const NodeReader& node) {
  node.expect(3, {"mode"});
  node.expect_text("mode", "constant");
  Value y = node.value(0, DType::u8);
  const std::vector<int64_t> pads = int64_values(node.constant(1));
  if (y.rank != 4 || pads.size() != 8) bad_model("it must have an input of rank 4 and 8 pads");
  if (pads[0] != 0 || pads[4] != 0) bad_model("it pads the batch, which is free");
  for (int64_t pad : pads) {
    if (pad < 0 || pad > INT32_MAX) bad_model("pads must be 0 to 2^31 - 1, given is " + std::to_string(pad));
  }
  if (node.zero(2) != y.zero) {
    bad_model("it pads with " + std::to_string(node.zero(2)) + ", the zero point of its input is " + std::to_string(y.zero));
  }
  y.channels = checked_add(y.channels, pads[1] + pads[5]);
  y.height = checked_add(y.height, pads[2] + pads[6]);
  y.width = checked_add(y.width, pads[3] + pads[7]);
  node.emit({node.value_index(0)}, y, Pad{pads[1], pads[2], pads[3]});
}

void read_slice(const NodeReader& node) {
  node.expect(5, {});
  Value y = node.value(0, DType::u8);
  const std::vector<int64_t> starts = int64_values(node.constant(1)), ends = int64_values(node.constant(2));
  const std::vector<int64_t> axes = int64_values(node.constant(3)), steps = int64_values(node.constant(4));
  if (starts.size() != ends.size() || axes.size() != ends.size() || steps.size() != ends.size()) {
    bad_model("its starts, ends, axes and steps differ in length");
  }
  std::vector<int64_t> shape = shape_of(y);
  std::vector<bool> seen(4);
  Slice slice;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = checked_axis(axes[i], y.rank), size = shape[axis - 1];
    if (seen[axis]) bad_model("it names an axis twice");
    seen[axis] = true;
    if (steps[i] < 1) bad_model("steps must be 1 or more, given is " + std::to_string(steps[i]));
    const auto clamped = [size](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
    const int64_t begin = clamped(starts[i]), end = clamped(ends[i]);
    if (begin >= end) bad_model("it keeps nothing of axis " + std::to_string(axis));
    slice.start[axis - 1] = begin;
    slice.step[axis - 1] = std::min(steps[i], size);
    shape[axis - 1] = (end - begin - 1) / slice.step[axis - 1] + 1;
  }
  set_shape(&y, shape);
  node.emit({node.value_index(0)}, y, slice);
}

void read_concat(const NodeReader& node) {
  if (node.input_count() < 1 || node.input_count() > 1024) bad_model("it must have 1 to 1024 inputs");
  node.expect(node.input_count(), {"axis"});
  Value y = node.value(0, DType::u8);
  const int64_t axis = checked_axis(node.integer("axis", 0), y.rank);
  std::vector<int64_t> shape = shape_of(y);
  std::vector<int> inputs{node.value_index(0)};
  for (size_t i = 1; i < node.input_count(); ++i) {
    const Value& x = node.value(i, DType::u8);
    std::vector<int64_t> expected = shape, given = shape_of(x);
    if (x.scale != y.scale || x.zero != y.zero) bad_model("its inputs differ in scale or zero point");
    if (x.rank != y.rank) bad_model("its inputs differ in rank");
    expected[axis - 1] = given[axis - 1];
    if (given != expected) bad_model("its input " + quoted(x.name) + " does not fit the others beside axis " + std::to_string(axis));
    shape[axis - 1] = checked_add(shape[axis - 1], given[axis - 1]);
    inputs.push_back(node.value_index(i));
  }
  set_shape(&y, shape);
  node.emit(std::move(inputs), y, Concat{static_cast<int>(axis)});
}

void read_reshape(const NodeReader& node) {
  node.expect(2, {"allowzero"});
  node.expect_integer("allowzero", 0);
  const Value x = node.value(0);
  std::vector<int64_t> shape = int64_values(node.constant(1));
  if (shape.size() != 2 && shape.size() != 4) {
    unsupported("it gives rank " + std::to_string(shape.size()) + ", this engine runs 2 and 4; run this file with ONNX Runtime");
  }
  if (shape[0] != 0) bad_model("the first entry of its shape is " + std::to_string(shape[0]) + ", allowed is 0, the free batch");
  shape.erase(shape.begin());
  const std::vector<int64_t> old = shape_of(x);
  int64_t known = 1, open = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && i < old.size()) shape[i] = old[i];
    if (shape[i] == -1 && open < 0) open = static_cast<int64_t>(i);
    else if (shape[i] < 1) bad_model("its shape has an entry that is neither a size nor the only -1");
    else known = checked_mul(known, shape[i]);
  }
  if (open >= 0) shape[open] = std::max<int64_t>(1, x.elements() / known);
  emit_reshaped(node, x, shape);
}

void read_flatten(const NodeReader& node) {
  node.expect(1, {"axis"});
  node.expect_integer("axis", 1);
  const Value x = node.value(0);
  emit_reshaped(node, x, {x.elements()});
}

}  // namespace tritkit
