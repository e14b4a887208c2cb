// Field numbers are those of onnx.proto3.
#include "model/onnx.h"

#include "base/error.h"
#include "model/wire.h"

namespace tritkit {
namespace {

// A repeated int64 arrives packed (one length-delimited field) or as one varint a field.
void read_ints(const WireField& field, std::vector<int64_t>* out) {
  if (field.type != WireField::bytes_type) return out->push_back(field.as_int64());
  for (WireReader reader(field.bytes); !reader.done();) out->push_back(reader.packed_varint());
}

void read_typed_ints(const WireField& field, std::vector<std::string_view>* chunks, std::vector<int64_t>* loose) {
  if (field.type == WireField::bytes_type) return chunks->push_back(field.bytes);
  loose->push_back(field.as_int64());
}

std::pair<std::string_view, std::string_view> read_string_pair(std::string_view bytes) {
  std::pair<std::string_view, std::string_view> result;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    if (field.tag == 1) result.first = field.as_bytes();
    if (field.tag == 2) result.second = field.as_bytes();
  }
  return result;
}

OnnxTensor read_tensor(std::string_view bytes) {
  OnnxTensor tensor;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    switch (field.tag) {
      case 1: read_ints(field, &tensor.dims); break;
      case 2: tensor.type = field.as_int64(); break;
      case 4:
        if (field.type == WireField::bytes_type) tensor.float_data.push_back(field.bytes);
        else tensor.loose_floats.push_back(field.as_float());
        break;
      case 5: read_typed_ints(field, &tensor.int32_data, &tensor.loose_ints); break;
      case 7: read_typed_ints(field, &tensor.int64_data, &tensor.loose_ints); break;
      case 8: tensor.name = field.as_bytes(); break;
      case 9: tensor.raw = field.as_bytes(); tensor.has_raw = true; break;
      case 13: tensor.external = true; break;
      case 14: tensor.external = tensor.external || field.as_int64() != 0; break;
      default: break;
    }
  }
  return tensor;
}

OnnxAttribute read_attribute(std::string_view bytes) {
  OnnxAttribute attribute;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    switch (field.tag) {
      case 1: attribute.name = field.as_bytes(); break;
      case 2: attribute.f = field.as_float(); attribute.has_float = true; break;
      case 3: attribute.i = field.as_int64(); attribute.has_int = true; break;
      case 4: attribute.s = field.as_bytes(); attribute.has_string = true; break;
      case 8: read_ints(field, &attribute.ints); break;
      case 13: case 20: break;  // doc_string; type, which the filled field tells already
      default: attribute.other = true; break;
    }
  }
  return attribute;
}

OnnxNode read_node(std::string_view bytes) {
  OnnxNode node;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    switch (field.tag) {
      case 1: node.inputs.push_back(field.as_bytes()); break;
      case 2: node.outputs.push_back(field.as_bytes()); break;
      case 3: node.name = field.as_bytes(); break;
      case 4: node.op = field.as_bytes(); break;
      case 5: node.attributes.push_back(read_attribute(field.as_bytes())); break;
      case 7: node.domain = field.as_bytes(); break;
      default: break;
    }
  }
  return node;
}

void read_shape(std::string_view bytes, OnnxValue* value) {
  value->has_shape = true;
  WireField field, part;
  for (WireReader reader(bytes); reader.next(&field);) {
    if (field.tag != 1) continue;
    OnnxDim dim;
    for (WireReader parts(field.as_bytes()); parts.next(&part);) {
      if (part.tag == 1) dim = {true, part.as_int64()};
    }
    value->dims.push_back(dim);
  }
}

void read_type(std::string_view bytes, OnnxValue* value) {
  WireField field, part;
  for (WireReader reader(bytes); reader.next(&field);) {
    if (field.tag != 1) continue;
    value->is_tensor = true;
    for (WireReader parts(field.as_bytes()); parts.next(&part);) {
      if (part.tag == 1) value->type = part.as_int64();
      if (part.tag == 2) read_shape(part.as_bytes(), value);
    }
  }
}

OnnxValue read_value(std::string_view bytes) {
  OnnxValue value;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    if (field.tag == 1) value.name = field.as_bytes();
    if (field.tag == 2) read_type(field.as_bytes(), &value);
  }
  return value;
}

void read_graph(std::string_view bytes, OnnxModel* model) {
  if (model->has_graph) bad_model("the file is damaged: it has two graphs");
  model->has_graph = true;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    switch (field.tag) {
      case 1: model->nodes.push_back(read_node(field.as_bytes())); break;
      case 5: model->initializers.push_back(read_tensor(field.as_bytes())); break;
      case 11: model->inputs.push_back(read_value(field.as_bytes())); break;
      case 12: model->outputs.push_back(read_value(field.as_bytes())); break;
      case 15: bad_model("the file has sparse initializers; allowed are dense ones"); break;
      default: break;
    }
  }
}

std::pair<std::string_view, int64_t> read_opset(std::string_view bytes) {
  std::pair<std::string_view, int64_t> result;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    if (field.tag == 1) result.first = field.as_bytes();
    if (field.tag == 2) result.second = field.as_int64();
  }
  return result;
}

}  // namespace

OnnxModel read_onnx(std::string_view bytes) {
  OnnxModel model;
  WireField field;
  for (WireReader reader(bytes); reader.next(&field);) {
    switch (field.tag) {
      case 1: model.ir_version = field.as_int64(); break;
      case 7: read_graph(field.as_bytes(), &model); break;
      case 8: model.opsets.push_back(read_opset(field.as_bytes())); break;
      case 14: model.metadata.push_back(read_string_pair(field.as_bytes())); break;
      default: break;
    }
  }
  return model;
}

}  // namespace tritkit
