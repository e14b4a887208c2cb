#include "runtime/layout.h"

#include <algorithm>

#include "base/checked.h"

namespace tritkit {
namespace {

// Pixels beyond the border that the last tap of the last output reads.
int64_t beyond(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t extent = dilation * (kernel - 1) + 1, outputs = (size + before + after - extent) / stride + 1;
  return std::max<int64_t>(0, (outputs - 1) * stride + extent - before - size);
}

void grow_halo(const Window& w, Image* image) {
  image->top = std::max(image->top, w.top);
  image->left = std::max(image->left, w.left);
  image->bottom = std::max(image->bottom, beyond(image->height, w.top, w.bottom, w.kernel_h, w.stride_h, w.dilation_h));
  image->right = std::max(image->right, beyond(image->width, w.left, w.right, w.kernel_w, w.stride_w, w.dilation_w));
}

void place_codes(Place* place) {
  Image& image = place->image;
  image.pixel = round_up(image.channels, 4);
  image.row = (image.left + image.width + image.right) * image.pixel;
  image.image = checked_mul(image.top + image.height + image.bottom, image.row);
  place->origin = image.top * image.row + image.left * image.pixel;
  place->bytes = round_up(image.image, 64);
}

struct Lifetime {
  int value;
  int first, last;  // steps
};

// Greedy: the largest tensor first, each at the lowest offset that is free while it lives.
int64_t assign_offsets(std::vector<Lifetime> lifetimes, std::vector<Place>* places) {
  std::stable_sort(lifetimes.begin(), lifetimes.end(), [places](const Lifetime& a, const Lifetime& b) {
    return (*places)[a.value].bytes > (*places)[b.value].bytes;
  });
  int64_t total = 0;
  std::vector<Lifetime> placed;  // sorted by offset
  for (const Lifetime& life : lifetimes) {
    Place& place = (*places)[life.value];
    int64_t offset = 0;
    for (const Lifetime& other : placed) {
      const Place& there = (*places)[other.value];
      if (other.last < life.first || life.last < other.first) continue;
      if (checked_add(offset, place.bytes) <= there.offset) break;
      offset = std::max(offset, checked_add(there.offset, there.bytes));
    }
    place.offset = offset;
    total = std::max(total, checked_add(offset, place.bytes));
    const auto after = std::upper_bound(placed.begin(), placed.end(), offset,
                                        [places](int64_t at, const Lifetime& other) { return at < (*places)[other.value].offset; });
    placed.insert(after, life);
  }
  return total;
}

std::vector<Lifetime> lifetimes_of(const std::vector<PlannedNode>& nodes, const std::vector<Place>& places) {
  std::vector<int> first(places.size(), -1), last(places.size(), -1);
  for (size_t step = 0; step < nodes.size(); ++step) {
    const int now = static_cast<int>(step);
    for (int input : nodes[step].inputs) last[input] = now;
    if (nodes[step].residual >= 0) last[nodes[step].residual] = now;
    first[nodes[step].output] = last[nodes[step].output] = now;
  }
  std::vector<Lifetime> result;
  for (size_t value = 0; value < places.size(); ++value) {
    if (first[value] >= 0 && places[value].kind == Place::arena) result.push_back({static_cast<int>(value), first[value], last[value]});
  }
  return result;
}

}  // namespace

Layout lay_out(const Graph& graph, const std::vector<PlannedNode>& nodes) {
  Layout layout;
  for (const Value& value : graph.values) {
    Place place;
    place.kind = Place::arena;
    place.image.channels = value.channels;
    place.image.height = value.height;
    place.image.width = value.width;
    place.image.zero = static_cast<uint8_t>(value.zero);
    place.bytes = round_up(value.elements() * 4, 64);
    layout.places.push_back(place);
  }
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    layout.places[graph.inputs[i]].kind = Place::input;
    layout.places[graph.inputs[i]].index = static_cast<int>(i);
  }
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    layout.places[graph.outputs[i]].kind = Place::output;
    layout.places[graph.outputs[i]].index = static_cast<int>(i);
  }
  for (const PlannedNode& node : nodes) {
    if (std::holds_alternative<Conv>(graph.nodes[node.node].spec)) grow_halo(node.window, &layout.places[node.inputs[0]].image);
  }
  for (size_t i = 0; i < graph.values.size(); ++i) {
    if (graph.values[i].dtype == DType::u8) place_codes(&layout.places[i]);
  }
  layout.arena_bytes = assign_offsets(lifetimes_of(nodes, layout.places), &layout.places);
  return layout;
}

}  // namespace tritkit
