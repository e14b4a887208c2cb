#include "kernels/baked/pairing.h"

#include <algorithm>
#include <cstring>

#include "kernels/baked/partner.h"

namespace tritkit {
namespace {

constexpr size_t kBlock = 576;  // inputs among which partners are looked for: all of a 3x3 layer with 64 channels
constexpr int kMostUsers = 24;

int bits(uint32_t x) { return __builtin_popcount(x); }
bool several(uint32_t x) { return (x & (x - 1)) != 0; }

BakedPair make_pair(const BakedInput& a, const BakedInput& b) {
  const uint32_t same = (a.plus & b.plus) | (a.minus & b.minus), other = (a.plus & b.minus) | (a.minus & b.plus);
  return {a, b, several(same) ? same : 0, several(other) ? other : 0};
}

// Inputs that wait for a partner, those with most users first.
class Waiting {
 public:
  Waiting(const BakedInput* inputs, size_t count) {
    int users[kBlock];
    for (size_t i = 0; i < count; ++i) users[i] = bits(inputs[i].users());
    for (int most = kMostUsers; most > 0; --most) {
      for (size_t i = 0; i < count; ++i) {
        if (users[i] == most) add(inputs + i);
      }
    }
  }

  bool empty() const { return begin_ == end_; }

  // The first one and the one that saves most additions with it, or none.
  BakedPair take() {
    const uint32_t first = begin_++, others = end_ - begin_;
    const uint32_t best = best_partner(plus_[first], minus_[first], plus_ + begin_, minus_ + begin_, others);
    if (best == others) return {*order_[first], {0, 0, 0}, 0, 0};
    const BakedPair pair = make_pair(*order_[first], *order_[begin_ + best]);
    remove(best);
    return pair;
  }

 private:
  void add(const BakedInput* input) {
    plus_[end_] = input->plus, minus_[end_] = input->minus;
    order_[end_++] = input;
  }
  void remove(uint32_t i) {
    std::memmove(order_ + begin_ + 1, order_ + begin_, i * sizeof *order_);
    std::memmove(plus_ + begin_ + 1, plus_ + begin_, i * sizeof *plus_);
    std::memmove(minus_ + begin_ + 1, minus_ + begin_, i * sizeof *minus_);
    ++begin_;
  }

  uint32_t begin_ = 0, end_ = 0;
  const BakedInput* order_[kBlock];
  uint32_t plus_[kBlock], minus_[kBlock];
};

}  // namespace

std::vector<BakedPair> pair_inputs(const std::vector<BakedInput>& inputs) {
  std::vector<BakedPair> pairs;
  const size_t blocks = (inputs.size() + kBlock - 1) / kBlock;
  for (size_t b = 0; b < blocks; ++b) {
    const size_t begin = inputs.size() * b / blocks, end = inputs.size() * (b + 1) / blocks, before = pairs.size();
    for (Waiting waiting(inputs.data() + begin, end - begin); !waiting.empty();) pairs.push_back(waiting.take());
    std::sort(pairs.begin() + static_cast<std::ptrdiff_t>(before), pairs.end(), [](const BakedPair& x, const BakedPair& y) { return x.a.at < y.a.at; });
  }
  return pairs;
}

int64_t loads(const BakedPair& pair) { return pair.shared() != 0 ? 2 : several(pair.a.users()); }

int64_t additions(const BakedPair& pair) {
  return bits(pair.a.users()) + bits(pair.b.users()) - bits(pair.shared()) + (pair.sum != 0) + (pair.difference != 0);
}

}  // namespace tritkit
