#include "kernels/baked/program.h"

#include <algorithm>
#include <cstring>

#include "kernels/baked/emitter.h"
#include "kernels/baked/pairing.h"

namespace tritkit {
namespace {

constexpr int kSameSign = 128;                  // of one sum in a chunk: 128 * 255 < 2^15
constexpr size_t kStep = 2 * (kBakedSums + 2);  // instructions of a pair of inputs at most

// What the tile's outputs take of each tap and channel.
std::vector<BakedInput> inputs_of(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, const BakedTile& tile) {
  const int64_t taps = shape.kernel_h * shape.kernel_w, channels = geometry.channels(), count = taps * channels;
  std::vector<uint32_t> plus(static_cast<size_t>(count)), minus(plus.size());
  for (int64_t o = 0; o < tile.outputs; ++o) {
    const int8_t* const codes = weights.codes + (tile.output + o) * count;
    const int64_t bit = tile.two_sums ? 2 * o : o;
    for (size_t k = 0; k < plus.size(); ++k) plus[k] |= static_cast<uint32_t>(codes[k] > 0) << bit;
    for (size_t k = 0; k < plus.size(); ++k) minus[k] |= static_cast<uint32_t>(codes[k] < 0) << bit;
  }
  std::vector<BakedInput> inputs;
  inputs.reserve(plus.size());
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t at = c * geometry.phases() * geometry.plane() + geometry.tap_offset(t / shape.kernel_w, t % shape.kernel_w);
      const size_t k = static_cast<size_t>(t * channels + c);
      // a second sum, which is multiplied by -n, adds up what is subtracted
      inputs.push_back({static_cast<int32_t>(2 * at), tile.two_sums ? plus[k] | minus[k] << 1 : plus[k], tile.two_sums ? 0 : minus[k]});
    }
  }
  return inputs;
}

// Makes one tile's chunks.
template <class Emitter>
class TileBaker {
 public:
  TileBaker(BakedTile* tile, bool short_sums, Emitter* emit) : tile_(*tile), short_sums_(short_sums), emit_(*emit) {}

  // The number of instructions.
  int64_t bake(const std::vector<BakedPair>& pairs) {
    begin();
    for (const BakedPair& pair : pairs) {
      if (full(pair)) {
        end();
        begin();
      }
      use(pair);
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

  bool full(const BakedPair& pair) const {
    if (emit_.size() + kStep * Emitter::kLongest > tile_.chunks.back() + static_cast<size_t>(kBakedChunk)) return true;
    for (int s = 0; s < sums() && !short_sums_; ++s) {
      if (added_[s] + bit(pair.a.plus, s) + bit(pair.b.plus, s) > kSameSign) return true;
      if (subtracted_[s] + bit(pair.a.minus, s) + bit(pair.b.minus, s) > kSameSign) return true;
    }
    return false;
  }

  void use(const BakedPair& pair) {
    for (int s = 0; s < sums() && !short_sums_; ++s) {
      added_[s] += bit(pair.a.plus, s) + bit(pair.b.plus, s);
      subtracted_[s] += bit(pair.a.minus, s) + bit(pair.b.minus, s);
    }
    emit_.reserve(kStep);
    instructions_ += loads(pair) + additions(pair);
    if (loads(pair) == 0) {
      emit_.add_memory(lowest(pair.a.users()), pair.a.at, pair.a.minus != 0);
      return;
    }
    const int a = load(pair.a), b = pair.shared() == 0 ? a : load(pair.b);
    if (pair.sum != 0) take(combine(a, b, false), pair.a, pair.sum);
    if (pair.difference != 0) take(combine(a, b, true), pair.a, pair.difference);
    take(a, pair.a, ~pair.shared());
    take(b, pair.b, ~pair.shared());
  }

  static int bit(uint32_t mask, int s) { return static_cast<int>(mask >> s & 1); }
  static int lowest(uint32_t mask) { return __builtin_ctz(mask); }

  int next() { return next_ = (next_ + 1) % Emitter::kLoads; }
  int load(const BakedInput& input) {
    emit_.load(next(), input.at);
    return next_;
  }
  int combine(int a, int b, bool minus) {
    emit_.combine(next(), a, b, minus);
    return next_;
  }
  // Adds x to those of `which` sums that take `input` with its sign, subtracts it from those that take its negative.
  void take(int x, const BakedInput& input, uint32_t which) {
    for (uint32_t left = input.users() & which; left != 0; left &= left - 1) emit_.add(lowest(left), x, bit(input.minus, lowest(left)) != 0);
  }

  BakedTile& tile_;
  const bool short_sums_;
  Emitter& emit_;
  int64_t instructions_ = 0;
  int next_ = 0;  // register of the latest load or combination
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

// Makes the last tile of `panel`; returns the number of instructions.
template <class Emitter>
int64_t bake_tile(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, BakedPanel* panel, Emitter* emit) {
  BakedTile* const tile = &panel->tiles.back();
  return TileBaker<Emitter>(tile, panel->short_sums, emit).bake(pair_inputs(inputs_of(shape, geometry, weights, *tile)));
}

// Tiles of a panel.
int64_t tiles_of(int64_t outputs, int64_t sums, bool two_sums) {
  const int64_t most = two_sums ? sums / 2 : sums;
  return (outputs + most - 1) / most;
}

}  // namespace

double additions_of_weight(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, int64_t sums) {
  const int64_t outputs = std::min(kBakedPanel, shape.out_channels / shape.groups);
  const bool two_sums = !symmetric(weights, 0, outputs);
  const BakedTile tile = make_tile(weights, 0, outputs / tiles_of(outputs, sums, two_sums), two_sums);
  int64_t weighed = 0, taken = 0;
  for (const BakedPair& pair : pair_inputs(inputs_of(shape, geometry, weights, tile))) {
    weighed += additions({pair.a, {0, 0, 0}, 0, 0}) + additions({pair.b, {0, 0, 0}, 0, 0});
    taken += additions(pair);
  }
  return weighed > 0 ? static_cast<double>(taken) / static_cast<double>(weighed) : 1.0;
}

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
      const int64_t tiles = tiles_of(panel.outputs, Emitter::kSums, two_sums);
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t begin = panel.outputs * t / tiles, end = panel.outputs * (t + 1) / tiles;
        panel.tiles.push_back(make_tile(weights, panel.output + begin, end - begin, two_sums));
        program.instructions += bake_tile(shape, geometry, weights, &panel, &emit);
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
