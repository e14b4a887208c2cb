#include "runtime/simplify.h"

#include <algorithm>

namespace tritkit {
namespace {

class Simplifier {
 public:
  explicit Simplifier(const Graph& graph) : graph_(graph), producer_(graph.values.size(), -1), uses_(graph.values.size(), 0) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      producer_[node.output] = static_cast<int>(i);
      planned_.push_back({static_cast<int>(i), node.inputs, node.output, -1, -1, window_of(node)});
    }
  }

  std::vector<PlannedNode> run() {
    for (PlannedNode& node : planned_) unflatten(&node);
    count_uses();
    for (PlannedNode& node : planned_) fuse_add(&node);
    count_uses();
    std::vector<PlannedNode> result;
    for (PlannedNode& node : planned_) {
      if (node.node >= 0 && uses_[node.output] > 0) result.push_back(std::move(node));
    }
    return result;
  }

 private:
  static Window window_of(const Node& node) {
    const Conv* conv = std::get_if<Conv>(&node.spec);
    return conv ? conv->window : Window{};
  }

  // A Gemm after a Reshape reads the tensor before it: weights are in (channel, row, column) order there as here.
  void unflatten(PlannedNode* node) {
    const Value& flat = graph_.values[node->inputs[0]];
    if (!std::holds_alternative<Conv>(graph_.nodes[node->node].spec) || flat.rank != 2) return;
    const int producer = producer_[node->inputs[0]];
    if (producer < 0 || !std::holds_alternative<Reshape>(graph_.nodes[producer].spec)) return;
    node->inputs[0] = graph_.nodes[producer].inputs[0];
    node->window.kernel_h = graph_.values[node->inputs[0]].height;
    node->window.kernel_w = graph_.values[node->inputs[0]].width;
  }

  // Backwards from the outputs, so that what only a dead node uses is not used.
  void count_uses() {
    std::fill(uses_.begin(), uses_.end(), 0);
    for (int output : graph_.outputs) ++uses_[output];
    for (auto node = planned_.rbegin(); node != planned_.rend(); ++node) {
      if (node->node < 0 || uses_[node->output] == 0) continue;
      for (int input : node->inputs) ++uses_[input];
      if (node->residual >= 0) ++uses_[node->residual];
    }
  }

  bool fusible(int value) const {
    const int producer = producer_[value];
    if (producer < 0 || uses_[value] != 1 || planned_[producer].add >= 0) return false;
    const Conv* conv = std::get_if<Conv>(&graph_.nodes[producer].spec);
    return conv && !conv->to_float;
  }

  // The convolution moves to the place of the addition, where both its input and the residual are there.
  void fuse_add(PlannedNode* node) {
    if (!std::holds_alternative<Add>(graph_.nodes[node->node].spec) || uses_[node->output] == 0) return;
    int conv = node->inputs[0], residual = node->inputs[1];
    if (!fusible(conv) || (fusible(residual) && producer_[residual] > producer_[conv])) std::swap(conv, residual);
    if (!fusible(conv)) return;
    PlannedNode fused = planned_[producer_[conv]];
    planned_[producer_[conv]].node = -1;
    fused.add = node->node;
    fused.residual = residual;
    fused.output = node->output;
    *node = std::move(fused);
  }

  const Graph& graph_;
  std::vector<int> producer_, uses_;
  std::vector<PlannedNode> planned_;
};

}  // namespace

std::vector<PlannedNode> simplify(const Graph& graph) { return Simplifier(graph).run(); }

}  // namespace tritkit
