// Writes ONNX bytes for the tests of the reader: only what a test names, right or wrong.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

namespace tritkit_test {

inline std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

inline std::string number(int tag, int64_t value) { return varint(tag << 3) + varint(static_cast<uint64_t>(value)); }

inline std::string bytes(int tag, const std::string& value) { return varint(tag << 3 | 2) + varint(value.size()) + value; }

template <typename T>
std::string raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

inline std::string tensor(const std::string& name, int type, const std::vector<int64_t>& dims, const std::string& data) {
  std::string out;
  for (int64_t dim : dims) out += number(1, dim);
  return out + number(2, type) + bytes(8, name) + bytes(9, data);
}

inline std::string ints(const std::string& name, const std::vector<int64_t>& values) {
  std::string packed;
  for (int64_t value : values) packed += varint(static_cast<uint64_t>(value));
  return bytes(1, name) + bytes(8, packed) + number(20, 7);
}

inline std::string integer(const std::string& name, int64_t value) { return bytes(1, name) + number(3, value) + number(20, 2); }

struct NodeText {
  std::string op, domain, name;
  std::vector<std::string> inputs, outputs, attributes;
};

inline std::string node(const NodeText& text) {
  std::string out;
  for (const auto& input : text.inputs) out += bytes(1, input);
  for (const auto& output : text.outputs) out += bytes(2, output);
  out += bytes(3, text.name) + bytes(4, text.op);
  for (const auto& attribute : text.attributes) out += bytes(5, attribute);
  return out + bytes(7, text.domain);
}

inline std::string value(const std::string& name, const std::vector<int64_t>& shape) {  // batch free
  std::string dims = bytes(1, bytes(2, "N"));
  for (int64_t dim : shape) dims += bytes(1, number(1, dim));
  return bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, dims)));
}

inline std::string model(const std::string& graph) {
  return number(1, 8) + bytes(7, graph) + bytes(8, number(2, 18)) + bytes(8, bytes(1, "tritkit") + number(2, 1)) +
         bytes(14, bytes(1, "tritkit.format") + bytes(2, "1"));
}

// image [N, 2, 4, 4] -> quantize -> 3x3 ternary convolution -> QAdd with a 1x1 -> max pool -> classifier [N, 3]
inline std::string small_model() {
  std::string g;
  const auto scalar = [&](const char* name, float value) { g += bytes(5, tensor(name, 1, {}, raw<float>({value}))); };
  scalar("xs", 0.05f);
  scalar("ys", 0.04f);
  g += bytes(5, tensor("xz", 2, {}, raw<uint8_t>({128})));
  g += bytes(5, tensor("w", 2, {2, 5}, raw<uint8_t>({0x4d, 0xd3, 0x71, 0x1c, 0x07, 0xc7, 0x31, 0x44, 0xdd, 0x0d})));
  g += bytes(5, tensor("book", 3, {2, 4}, raw<int8_t>({0, 3, 0, -2, 0, 64, 0, -1})));
  g += bytes(5, tensor("ws", 1, {2}, raw<float>({0.1f, 0.01f})));
  g += bytes(5, tensor("b", 6, {2}, raw<int32_t>({-50, 1000})));
  g += bytes(5, tensor("w1", 2, {2, 1}, raw<uint8_t>({0x0d, 0x01})));
  g += bytes(5, tensor("wl", 3, {3, 8}, raw<int8_t>({1, -2, 3, -4, 5, -6, 7, -8, 9, 10, -11, 12, 13, -64, 64, 0, 1, 1, 1, 1, -1, -1, 2, 2})));
  g += bytes(5, tensor("wsl", 1, {3}, raw<float>({0.1f, 0.2f, 0.3f})));
  g += bytes(5, tensor("bl", 6, {3}, raw<int32_t>({1, 2, 3})));
  g += bytes(5, tensor("shape", 7, {2}, raw<int64_t>({0, -1})));
  g += bytes(1, node({"QuantizeLinear", "", "in", {"image", "xs", "xz"}, {"q"}, {}}));
  g += bytes(1, node({"TernaryQConv", "tritkit", "conv", {"q", "xs", "xz", "w", "book", "ws", "b", "ys", "xz"}, {"y"},
                      {ints("w_shape", {2, 2, 3, 3}), ints("pads", {1, 1, 1, 1})}}));
  g += bytes(1, node({"TernaryQConv", "tritkit", "side", {"q", "xs", "xz", "w1", "book", "ws", "b", "ys", "xz"}, {"s"},
                      {ints("w_shape", {2, 2, 1, 1})}}));
  g += bytes(1, node({"QAdd", "tritkit", "add", {"y", "ys", "xz", "s", "ys", "xz", "xs", "xz"}, {"a"}, {}}));
  g += bytes(1, node({"MaxPool", "", "pool", {"a"}, {"p"}, {ints("kernel_shape", {2, 2}), ints("strides", {2, 2})}}));
  g += bytes(1, node({"Reshape", "", "flat", {"p", "shape"}, {"f"}, {}}));
  g += bytes(1, node({"Int8Gemm", "tritkit", "fc", {"f", "xs", "xz", "wl", "wsl", "bl"}, {"logits"}, {}}));
  g += bytes(11, value("image", {2, 4, 4})) + bytes(12, value("logits", {3}));
  return model(g);
}

// The same input and output, with multipliers for each group of weights: image -> quantize -> 1x1, one group of both channels ->
// 3x3 of stride 2, groups of 2 and 1 of its 3 channels -> classifier, groups of 4.
inline std::string group_model() {
  std::string g;
  const auto scalar = [&](const char* name, float value) { g += bytes(5, tensor(name, 1, {}, raw<float>({value}))); };
  const auto bytes_of = [](size_t count, int modulus) {
    std::string data;
    for (size_t i = 0; i < count; ++i) data += static_cast<char>(1 + (i * 7) % static_cast<size_t>(modulus));
    return data;
  };
  scalar("xs", 0.05f);
  scalar("ys", 0.04f);
  g += bytes(5, tensor("xz", 2, {}, raw<uint8_t>({128})));
  g += bytes(5, tensor("ws", 1, {3}, raw<float>({0.1f, 0.01f, 0.03f})));
  g += bytes(5, tensor("b", 6, {3}, raw<int32_t>({-50, 1000, 7})));
  g += bytes(5, tensor("w1", 2, {3, 1}, raw<uint8_t>({0x0d, 0x01, 0x0f})));
  g += bytes(5, tensor("p1", 3, {3, 1, 1, 1}, raw<int8_t>({1, 64, 5})));
  g += bytes(5, tensor("w2", 2, {3, 7}, raw<uint8_t>({0x4d, 0xd3, 0x71, 0x1c, 0x07, 0xc7, 0x31, 0x44, 0xdd, 0x0d, 0x4d, 0xd3,
                                                      0x71, 0x1c, 0x07, 0xc7, 0x31, 0x44, 0xdd, 0x0d, 0x15})));
  g += bytes(5, tensor("p2", 3, {3, 2, 3, 3}, bytes_of(54, 64)));
  g += bytes(5, tensor("n2", 3, {3, 2, 3, 3}, bytes_of(54, 13)));
  g += bytes(5, tensor("wl", 2, {3, 3}, raw<uint8_t>({0x4d, 0xd3, 0x71, 0x1c, 0x07, 0xc7, 0x31, 0x44, 0xdd})));
  g += bytes(5, tensor("pl", 3, {3, 3}, bytes_of(9, 60)));
  g += bytes(5, tensor("shape", 7, {2}, raw<int64_t>({0, -1})));
  g += bytes(1, node({"QuantizeLinear", "", "in", {"image", "xs", "xz"}, {"q"}, {}}));
  g += bytes(1, node({"TernaryGroupQConv", "tritkit", "first", {"q", "xs", "xz", "w1", "p1", "p1", "ws", "b", "ys", "xz"}, {"y"},
                      {ints("w_shape", {3, 2, 1, 1}), integer("group_size", 2)}}));
  g += bytes(1, node({"TernaryGroupQConv", "tritkit", "conv", {"y", "ys", "xz", "w2", "p2", "n2", "ws", "b", "xs", "xz"}, {"z"},
                      {ints("w_shape", {3, 3, 3, 3}), integer("group_size", 2), ints("strides", {2, 2}), ints("pads", {1, 1, 1, 1})}}));
  g += bytes(1, node({"Reshape", "", "flat", {"z", "shape"}, {"f"}, {}}));
  g += bytes(1, node({"TernaryGroupGemm", "tritkit", "fc", {"f", "xs", "xz", "wl", "pl", "pl", "ws", "b"}, {"logits"},
                      {ints("w_shape", {3, 12}), integer("group_size", 4)}}));
  g += bytes(11, value("image", {2, 4, 4})) + bytes(12, value("logits", {3}));
  return model(g);
}

}  // namespace tritkit_test
