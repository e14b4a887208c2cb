// What pair_inputs makes says the same as its inputs, and with fewer additions.
#include "kernels/baked/pairing.h"

#include <cstdio>
#include <map>
#include <random>

#include "kernels/baked/emitter.h"
#include "kernels/baked/partner.h"
#include "kernels/baked/program.h"

using namespace tritkit;

namespace {

int failures = 0;
std::mt19937 rng(5);

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}

std::vector<BakedInput> random_inputs(int32_t count, int sums, int percent, bool minus) {
  std::vector<BakedInput> inputs;
  for (int32_t k = 0; k < count; ++k) {
    BakedInput input{k, 0, 0};
    for (int s = 0; s < sums; ++s) {
      if (static_cast<int>(rng() % 100) < percent) (minus && rng() % 2 ? input.minus : input.plus) |= 1u << s;
    }
    inputs.push_back(input);
  }
  return inputs;
}

// How often each sum takes each input, counted as the instructions of a pair add them up; returns the number of additions.
using Taken = std::map<std::pair<int, int32_t>, int>;
int64_t take(const BakedPair& pair, int s, Taken* taken) {
  const auto of = [&](uint32_t mask) { return static_cast<int>(mask >> s & 1); };
  const int sign = of(pair.a.plus) - of(pair.a.minus);
  const auto add = [&](const BakedInput& input, int times) {
    if (times != 0) (*taken)[{s, input.at}] += times;
    return times != 0;
  };
  if (of(pair.sum)) return add(pair.a, sign) | add(pair.b, sign);
  if (of(pair.difference)) return add(pair.a, sign) | add(pair.b, -sign);
  return add(pair.a, sign) + add(pair.b, of(pair.b.plus) - of(pair.b.minus));
}

double check(const std::vector<BakedInput>& inputs) {
  Taken wanted, found;
  int64_t additions_found = 0;
  for (const BakedInput& input : inputs) {
    for (int s = 0; s < 32; ++s) take({input, {0, 0, 0}, 0, 0}, s, &wanted);
  }
  for (const BakedPair& pair : pair_inputs(inputs)) {
    int64_t count = (pair.sum != 0) + (pair.difference != 0);
    for (int s = 0; s < 32; ++s) count += take(pair, s, &found);
    expect(count == additions(pair), "additions are counted right");
    expect((pair.sum & pair.difference) == 0 && (pair.shared() & ~(pair.a.users() & pair.b.users())) == 0, "who shares takes both, one way");
    expect(pair.a.users() != 0 && (pair.shared() != 0 || pair.b.users() == 0), "a pair has users, and shares something or is no pair");
    additions_found += count;
  }
  expect(wanted == found, "every sum takes what it took before");
  return wanted.empty() ? 1.0 : static_cast<double>(additions_found) / static_cast<double>(wanted.size());
}

int count_of(uint32_t x) { return __builtin_popcount(x); }

// Against one candidate after the other.
void check_partner() {
  for (int round = 0; round < 200; ++round) {
    const uint32_t count = rng() % 70;
    const std::vector<BakedInput> inputs = random_inputs(static_cast<int32_t>(count) + 1, 24, static_cast<int>(rng() % 101), rng() % 2 != 0);
    std::vector<uint32_t> pluses, minuses;
    const BakedInput& a = inputs[count];
    uint32_t best = count;
    int most = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const BakedInput& b = inputs[i];
      pluses.push_back(b.plus), minuses.push_back(b.minus);
      const int same = count_of((a.plus & b.plus) | (a.minus & b.minus)), other = count_of((a.plus & b.minus) | (a.minus & b.plus));
      const int saved = (same > 1 ? same - 1 : 0) + (other > 1 ? other - 1 : 0);
      if (saved > most) most = saved, best = i;
    }
    expect(best_partner(a.plus, a.minus, pluses.data(), minuses.data(), count) == best, "the partner that saves most");
  }
}

// The compiled layer has fewer instructions than weights, loads included.
template <class Emitter>
void check_program() {
  ConvShape s;
  s.in_channels = s.out_channels = 64, s.kernel_h = s.kernel_w = 3, s.out_h = s.out_w = 56;
  std::vector<int8_t> codes(64 * 64 * 9), plus(64, 64), minus(64, -64);
  int64_t nonzero = 0;
  for (int8_t& code : codes) {
    code = rng() % 100 < 35 ? static_cast<int8_t>(rng() % 2 != 0 ? 1 : -1) : int8_t{0};
    nonzero += code != 0;
  }
  const BakedProgram program = bake<Emitter>(s, BakedGeometry(s, {1, 1, 1, 1}), {codes.data(), plus.data(), minus.data()}, size_t{1} << 20);
  const int64_t loads_at_least = 64 / Emitter::kSums * 576;
  expect(program.instructions > loads_at_least && program.instructions - loads_at_least < nonzero * 9 / 10, "programs share additions");
}

}  // namespace

int main() {
  check_partner();
  expect(pair_inputs({}).empty(), "nothing of nothing");
  expect(check(random_inputs(40, 24, 0, true)) == 1.0, "inputs that nobody takes are left out");
  for (const int count : {1, 2, 3, 144, 575, 576, 577, 1152, 1800}) {
    for (const int sums : {1, 2, 12, 24}) {
      for (const int percent : {3, 35, 50, 100}) check(random_inputs(count, sums, percent, true)), check(random_inputs(count, sums, percent, false));
    }
  }
  const double sparse = check(random_inputs(576, 24, 35, true)), dense = check(random_inputs(576, 24, 50, true));
  expect(sparse < 0.78 && dense < 0.72, "a quarter of the additions is shared at density 0.35, more at 0.5");
  check_program<Emitter512>();
  check_program<Emitter256>();
  std::printf("additions of a weight at density 0.35: %.3f, at 0.5: %.3f; %d failures\n", sparse, dense, failures);
  return failures != 0;
}
