#include "model/tensor.h"

#include <cstring>
#include <limits>

#include "base/checked.h"
#include "model/wire.h"

namespace tritkit {
namespace {

[[noreturn]] void wrong(const OnnxTensor& tensor, const std::string& what) {
  bad_model("initializer " + quoted(tensor.name) + " " + what);
}

int64_t element_count(const OnnxTensor& tensor) {
  if (tensor.dims.size() > 8) wrong(tensor, "has more than 8 dimensions");
  int64_t count = 1;
  for (int64_t dim : tensor.dims) {
    if (dim < 0) wrong(tensor, "has a negative dimension: " + shape_text(tensor.dims));
    count = checked_mul(count, dim);
  }
  return count;
}

void check(const OnnxTensor& tensor, int64_t type, int64_t count, int64_t found) {
  if (found != count) {
    wrong(tensor, "of shape " + shape_text(tensor.dims) + " needs " + std::to_string(count) + " elements of " +
                      type_name(type) + ", the file holds " + std::to_string(found));
  }
}

void check_kind(const OnnxTensor& tensor, int64_t type) {
  if (tensor.external) wrong(tensor, "is stored outside the file; save the model as one file");
  if (tensor.type != type) wrong(tensor, std::string("is ") + type_name(tensor.type) + ", allowed is " + type_name(type));
}

template <typename T>
bool decode_raw(const OnnxTensor& tensor, int64_t type, int64_t count, std::vector<T>* values) {
  if (!tensor.has_raw) return false;
  if (tensor.raw.size() % sizeof(T) != 0) wrong(tensor, "has a data length that is no multiple of its element size");
  check(tensor, type, count, static_cast<int64_t>(tensor.raw.size() / sizeof(T)));
  values->resize(count);
  if (count > 0) std::memcpy(values->data(), tensor.raw.data(), tensor.raw.size());
  return true;
}

template <typename T>
void append(const OnnxTensor& tensor, int64_t value, std::vector<T>* values) {
  if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max()) {
    wrong(tensor, "holds " + std::to_string(value) + ", outside the range of its type");
  }
  values->push_back(static_cast<T>(value));
}

template <typename T>
std::vector<T> decode_ints(const OnnxTensor& tensor, int64_t type, const std::vector<std::string_view>& chunks) {
  check_kind(tensor, type);
  const int64_t count = element_count(tensor);
  std::vector<T> values;
  if (decode_raw(tensor, type, count, &values)) return values;
  for (std::string_view chunk : chunks) {
    for (WireReader reader(chunk); !reader.done();) append(tensor, reader.packed_varint(), &values);
  }
  for (int64_t value : tensor.loose_ints) append(tensor, value, &values);
  check(tensor, type, count, static_cast<int64_t>(values.size()));
  return values;
}

}  // namespace

const char* type_name(int64_t onnx_type) {
  switch (onnx_type) {
    case 0: return "of no type";
    case OnnxTensor::float32: return "float32";
    case OnnxTensor::uint8: return "uint8";
    case OnnxTensor::int8: return "int8";
    case OnnxTensor::int32: return "int32";
    case OnnxTensor::int64: return "int64";
    case 10: return "float16";
    case 11: return "float64";
    case 16: return "bfloat16";
    default: return "another type";
  }
}

std::string shape_text(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size() && i < 8; ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + (dims.size() > 8 ? ", ...]" : "]");
}

std::vector<float> float_values(const OnnxTensor& tensor) {
  check_kind(tensor, OnnxTensor::float32);
  const int64_t count = element_count(tensor);
  std::vector<float> values;
  if (decode_raw(tensor, OnnxTensor::float32, count, &values)) return values;
  for (std::string_view chunk : tensor.float_data) {
    for (WireReader reader(chunk); !reader.done();) values.push_back(reader.packed_fixed<float>());
  }
  values.insert(values.end(), tensor.loose_floats.begin(), tensor.loose_floats.end());
  check(tensor, OnnxTensor::float32, count, static_cast<int64_t>(values.size()));
  return values;
}

std::vector<int32_t> int32_values(const OnnxTensor& tensor) {
  return decode_ints<int32_t>(tensor, OnnxTensor::int32, tensor.int32_data);
}
std::vector<int64_t> int64_values(const OnnxTensor& tensor) {
  return decode_ints<int64_t>(tensor, OnnxTensor::int64, tensor.int64_data);
}
std::vector<uint8_t> uint8_values(const OnnxTensor& tensor) {
  return decode_ints<uint8_t>(tensor, OnnxTensor::uint8, tensor.int32_data);
}
std::vector<int8_t> int8_values(const OnnxTensor& tensor) {
  return decode_ints<int8_t>(tensor, OnnxTensor::int8, tensor.int32_data);
}

}  // namespace tritkit
