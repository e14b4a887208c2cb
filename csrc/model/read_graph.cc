#include <algorithm>
#include <iterator>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model/node_reader.h"
#include "model/tensor.h"

namespace tritkit {
namespace {

struct Operation {
  std::string_view domain, name;
  void (*read)(const NodeReader&);
};

constexpr Operation operations[] = {
    {"tritkit", "TernaryQConv", read_ternary_conv},
    {"tritkit", "TernaryQGemm", read_ternary_qgemm},
    {"tritkit", "TernaryGemm", read_ternary_gemm},
    {"tritkit", "TernaryGroupQConv", read_ternary_group_conv},
    {"tritkit", "TernaryGroupQGemm", read_ternary_group_qgemm},
    {"tritkit", "TernaryGroupGemm", read_ternary_group_gemm},
    {"tritkit", "Int8QGemm", read_int8_qgemm},
    {"tritkit", "Int8Gemm", read_int8_gemm},
    {"tritkit", "QAdd", read_add},
    {"tritkit", "QAveragePool", read_average_pool},
    {"tritkit", "QRescale", read_rescale},
    {"", "QLinearConv", read_qlinear_conv},
    {"", "QuantizeLinear", read_quantize},
    {"", "DequantizeLinear", read_dequantize},
    {"", "MaxPool", read_max_pool},
    {"", "Clip", read_clip},
    {"", "Pad", read_pad},
    {"", "Slice", read_slice},
    {"", "Concat", read_concat},
    {"", "Reshape", read_reshape},
    {"", "Flatten", read_flatten},
    {"", "Conv", read_float_conv},
    {"", "Gemm", read_float_gemm},
    {"", "Relu", read_relu},
};

std::string_view plain_domain(std::string_view domain) { return domain == "ai.onnx" ? std::string_view() : domain; }

void check_versions(const OnnxModel& model) {
  if (model.ir_version < 8 || model.ir_version > 13) {
    bad_model("the file says IR version " + std::to_string(model.ir_version) + ", allowed are 8 to 13");
  }
  bool found = false;
  for (const auto& [domain, version] : model.opsets) {
    const std::string_view plain = plain_domain(domain);
    if (plain.empty() && version != 18) unsupported("the file uses opset " + std::to_string(version) + ", this engine runs 18");
    if (plain == "tritkit" && version != 1) {
      unsupported("the file uses version " + std::to_string(version) + " of the operations of tritkit, this engine runs 1; install a newer tritkit");
    }
    found = found || plain.empty();
  }
  if (!found) bad_model("the file names no opset");
  for (const auto& [key, value] : model.metadata) {
    if (key == "tritkit.format" && value != "1") unsupported("the file has format " + quoted(value) + ", this engine reads 1; install a newer tritkit");
  }
}

Value read_input(const OnnxValue& input) {
  const std::string name = "input " + quoted(input.name);
  if (!input.is_tensor || input.type != OnnxTensor::float32) bad_model(name + " is " + type_name(input.type) + ", allowed is float32");
  if (!input.has_shape || (input.dims.size() != 2 && input.dims.size() != 4)) bad_model(name + " must have the shape [N, C, H, W] or [N, K]");
  if (input.dims[0].fixed) bad_model(name + " has a fixed batch of " + std::to_string(input.dims[0].value) + ", the batch must be free (a name)");
  for (size_t i = 1; i < input.dims.size(); ++i) {
    if (!input.dims[i].fixed) bad_model(name + " has no size for axis " + std::to_string(i) + "; all but the batch must be fixed");
  }
  Value value;
  value.name = std::string(input.name);
  value.rank = static_cast<int>(input.dims.size());
  value.channels = input.dims[1].value;
  if (value.rank == 4) {
    value.height = input.dims[2].value;
    value.width = input.dims[3].value;
  }
  check_shape(value);
  return value;
}

void read_inputs(const OnnxModel& model, Symbols* symbols, Graph* graph) {
  for (const OnnxTensor& tensor : model.initializers) {
    if (tensor.name.empty() || !symbols->constants.emplace(tensor.name, &tensor).second) {
      bad_model("initializer " + quoted(tensor.name) + " has no name of its own");
    }
  }
  if (model.inputs.empty()) bad_model("the network has no input");
  for (const OnnxValue& input : model.inputs) {
    graph->values.push_back(read_input(input));
    const int index = static_cast<int>(graph->values.size()) - 1;
    if (input.name.empty() || symbols->constants.count(input.name) || !symbols->values.emplace(input.name, index).second) {
      bad_model("input " + quoted(input.name) + " has no name of its own");
    }
    graph->inputs.push_back(index);
  }
}

void read_node(const OnnxNode& node, Symbols* symbols, Graph* graph) {
  const std::string_view domain = plain_domain(node.domain);
  const auto found = std::find_if(std::begin(operations), std::end(operations),
                                  [&](const Operation& op) { return op.domain == domain && op.name == node.op; });
  if (found == std::end(operations)) {
    unsupported("this engine does not run the operation " + quoted(node.op) + (domain.empty() ? "" : " of domain " + quoted(domain)) +
                "; run this file with ONNX Runtime");
  }
  if (node.outputs.size() != 1 || node.outputs[0].empty()) bad_model("it must have one named output");
  if (symbols->constants.count(node.outputs[0]) || symbols->values.count(node.outputs[0])) {
    bad_model("its output " + quoted(node.outputs[0]) + " exists already");
  }
  found->read(NodeReader(node, *symbols, graph));
  symbols->values.emplace(node.outputs[0], static_cast<int>(graph->values.size()) - 1);
}

std::string place(const OnnxNode& node, size_t index) {
  return "node " + (node.name.empty() ? "number " + std::to_string(index) : quoted(node.name)) + " (" + printable(node.op) + "): ";
}

void read_outputs(const OnnxModel& model, const Symbols& symbols, Graph* graph) {
  if (model.outputs.empty()) bad_model("the network has no output");
  for (const OnnxValue& output : model.outputs) {
    const auto found = symbols.values.find(output.name);
    if (found == symbols.values.end() || found->second < static_cast<int>(graph->inputs.size())) {
      bad_model("no node computes the output " + quoted(output.name));
    }
    if (graph->values[found->second].dtype != DType::f32) bad_model("output " + quoted(output.name) + " is uint8, allowed is float32");
    if (std::find(graph->outputs.begin(), graph->outputs.end(), found->second) != graph->outputs.end()) {
      bad_model("output " + quoted(output.name) + " is listed twice");
    }
    graph->outputs.push_back(found->second);
  }
}

}  // namespace

Graph read_graph(std::string_view file) {
  const OnnxModel model = read_onnx(file);
  if (!model.has_graph) bad_model("the file is not an ONNX file: it has no graph");
  check_versions(model);
  Graph graph;
  graph.file_bytes = static_cast<int64_t>(file.size());
  Symbols symbols;
  read_inputs(model, &symbols, &graph);
  for (size_t i = 0; i < model.nodes.size(); ++i) {
    try {
      read_node(model.nodes[i], &symbols, &graph);
    } catch (const Error& error) {
      throw Error(error.status, place(model.nodes[i], i) + error.what());
    }
  }
  read_outputs(model, symbols, &graph);
  for (const auto& [key, value] : model.metadata) graph.metadata.emplace_back(key, value);
  return graph;
}

}  // namespace tritkit
