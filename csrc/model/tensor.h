// Initializers decoded to plain vectors, with type, shape and element count checked.
#pragma once
#include <string>
#include <vector>

#include "model/onnx.h"

namespace tritkit {

const char* type_name(int64_t onnx_type);
std::string shape_text(const std::vector<int64_t>& dims);  // "[64, 3, 3, 3]"

// Each throws TK_BAD_MODEL naming the tensor when its type differs or its data does not fill its shape.
std::vector<float> float_values(const OnnxTensor& tensor);
std::vector<int32_t> int32_values(const OnnxTensor& tensor);
std::vector<int64_t> int64_values(const OnnxTensor& tensor);
std::vector<uint8_t> uint8_values(const OnnxTensor& tensor);
std::vector<int8_t> int8_values(const OnnxTensor& tensor);

}  // namespace tritkit
