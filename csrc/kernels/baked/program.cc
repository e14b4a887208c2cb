#include "kernels/baked/program.h"

#include <algorithm>
#include <cstring>

#include "kernels/baked/emitter.h"

namespace tritkit {
namespace {

constexpr int kSameSign = 128;            // of one sum in a chunk: 128 * 255 < 2^15
constexpr size_t kStep = kBakedSums + 1;  // instructions of one tap and channel at most

// Makes one tile's chunks.
template <class Emitter>
class TileBaker {
 public:
  TileBaker(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, BakedTile* tile, bool short_sums, Emitter* emit)
      : shape_(shape), geometry_(geometry), weights_(weights), tile_(*tile), short_sums_(short_sums), emit_(*emit) {}

  // The number of instructions.
  int64_t bake() {
    const int64_t taps = shape_.kernel_h * shape_.kernel_w, channels = geometry_.channels();
    begin();
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        find_users(t * channels + c, taps * channels);
        if (users_ == 0) continue;
        if (full()) {
          end();
          begin();
        }
        const int64_t at = c * geometry_.phases() * geometry_.plane() + geometry_.tap_offset(t / shape_.kernel_w, t % shape_.kernel_w);
        use(static_cast<int32_t>(2 * at));
      }
    }
    end();
    return instructions_;
  }

 private:
  int sums() const { return static_cast<int>(tile_.outputs) * (tile_.two_sums ? 2 : 1); }

  void begin() {
    const bool resumes = short_sums_ && !tile_.chunks.empty();
    tile_.chunks.push_back(emit_.size());
    std::memset(added_, 0, sizeof added_);
    std::memset(subtracted_, 0, sizeof subtracted_);
    emit_.reserve(kBakedSums);
    for (int s = 0; s < sums(); ++s) resumes ? emit_.resume(s) : emit_.clear(s);
    instructions_ += 2 * sums();
  }

  void end() {
    emit_.reserve(kStep);
    for (int s = 0; s < sums(); ++s) emit_.store(s);
    emit_.ret();
  }

  // The outputs whose weight at `k` is not zero.
  void find_users(int64_t k, int64_t inputs) {
    users_ = 0;
    const int8_t* codes = weights_.codes + tile_.output * inputs + k;
    for (int o = 0; o < tile_.outputs; ++o, codes += inputs) {
      if (*codes == 0) continue;
      sum_[users_] = tile_.two_sums ? 2 * o + (*codes < 0) : o;
      minus_[users_++] = !tile_.two_sums && *codes < 0;
    }
  }

  bool full() const {
    if (emit_.size() + kStep * Emitter::kLongest > tile_.chunks.back() + static_cast<size_t>(kBakedChunk)) return true;
    for (int u = 0; u < users_ && !short_sums_; ++u) {
      if ((minus_[u] ? subtracted_ : added_)[sum_[u]] == kSameSign) return true;
    }
    return false;
  }

  void use(int32_t at) {
    instructions_ += users_ + (users_ > 1);
    emit_.reserve(kStep);
    for (int u = 0; u < users_; ++u) ++(minus_[u] ? subtracted_ : added_)[sum_[u]];
    if (users_ == 1) {
      minus_[0] ? emit_.subtract_memory(sum_[0], at) : emit_.add_memory(sum_[0], at);
      return;
    }
    emit_.load(next_, at);
    for (int u = 0; u < users_; ++u) minus_[u] ? emit_.subtract(sum_[u], next_) : emit_.add(sum_[u], next_);
    next_ = (next_ + 1) % Emitter::kLoads;
  }

  const ConvShape& shape_;
  const BakedGeometry& geometry_;
  const ConvWeights& weights_;
  BakedTile& tile_;
  const bool short_sums_;
  Emitter& emit_;
  int64_t instructions_ = 0;
  int next_ = 0;  // register of the next load
  int users_ = 0;
  int sum_[kBakedSums];
  bool minus_[kBakedSums];
  int added_[kBakedSums], subtracted_[kBakedSums];
};

bool symmetric(const ConvWeights& weights, int64_t first, int64_t outputs) {
  for (int64_t o = first; o < first + outputs; ++o) {
    if (weights.plus[o] != -weights.minus[o]) return false;
  }
  return true;
}

// Whether no sum of these outputs has more than kSameSign weights of one sign.
bool short_sums(const ConvWeights& weights, int64_t first, int64_t outputs, int64_t inputs) {
  for (int64_t o = first; o < first + outputs; ++o) {
    const int8_t* const codes = weights.codes + o * inputs;
    if (std::count(codes, codes + inputs, int8_t{1}) > kSameSign || std::count(codes, codes + inputs, int8_t{-1}) > kSameSign) return false;
  }
  return true;
}

BakedTile make_tile(const ConvWeights& weights, int64_t first, int64_t outputs, bool two_sums) {
  BakedTile tile{first, outputs, two_sums, {}, {}};
  for (int64_t o = first; o < first + outputs; ++o) {
    const uint32_t plus = static_cast<uint16_t>(weights.plus[o]), minus = static_cast<uint16_t>(weights.minus[o]);
    tile.values.push_back(static_cast<int32_t>(two_sums ? plus | minus << 16 : plus));
  }
  return tile;
}

}  // namespace

template <class Emitter>
BakedProgram bake(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, size_t limit) {
  BakedProgram program;
  Emitter emit(&program.code);
  const int64_t outputs = shape.out_channels / shape.groups, inputs = geometry.channels() * shape.kernel_h * shape.kernel_w;
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t first = 0; first < outputs; first += kBakedPanel) {
      BakedPanel panel{group, group * outputs + first, std::min(kBakedPanel, outputs - first), false, {}};
      panel.short_sums = short_sums(weights, panel.output, panel.outputs, inputs);
      const bool two_sums = !symmetric(weights, panel.output, panel.outputs);
      const int64_t largest = two_sums ? Emitter::kSums / 2 : Emitter::kSums, tiles = (panel.outputs + largest - 1) / largest;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t begin = panel.outputs * t / tiles, end = panel.outputs * (t + 1) / tiles;
        panel.tiles.push_back(make_tile(weights, panel.output + begin, end - begin, two_sums));
        program.instructions += TileBaker<Emitter>(shape, geometry, weights, &panel.tiles.back(), panel.short_sums, &emit).bake();
        if (emit.size() > limit) return {};
      }
      program.panels.push_back(std::move(panel));
    }
  }
  emit.finish();
  return program;
}

template BakedProgram bake<Emitter512>(const ConvShape&, const BakedGeometry&, const ConvWeights&, size_t);
template BakedProgram bake<Emitter256>(const ConvShape&, const BakedGeometry&, const ConvWeights&, size_t);

}  // namespace tritkit
