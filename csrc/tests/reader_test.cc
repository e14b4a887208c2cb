// The reader over damaged files: it answers with a session or a sentence, never with undefined behaviour. Run under the address
// and undefined-behaviour sanitizers by scripts/check. The mutations are the same on every run.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/expect.h"
#include "tests/onnx_bytes.h"
#include "tritkit.h"

namespace {

using tritkit_test::group_model;
using tritkit_test::small_model;

struct Random {
  uint64_t state = 0x9e3779b97f4a7c15u;
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
  size_t below(size_t limit) { return static_cast<size_t>(next() % limit); }
};

struct Counts {
  int sound = 0, refused = 0;
};

bool is_the_usual_shape(const tk_session* session) {
  tk_value_info in, out;
  if (tk_session_input_count(session) != 1 || tk_session_output_count(session) != 1) return false;
  if (tk_session_input(session, 0, &in, nullptr) || tk_session_output(session, 0, &out, nullptr)) return false;
  return in.rank == 4 && in.dims[1] == 2 && in.dims[2] == 4 && in.dims[3] == 4 && out.rank == 2 && out.dims[1] == 3;
}

// The bytes are copied to memory of exactly their size, so that a read beyond them is caught.
void open_and_run(const std::string& file, Counts* counts) {
  const std::vector<char> exact(file.begin(), file.end());
  tk_options options{};
  options.size = sizeof options;
  options.threads = 1;
  tk_session* session = nullptr;
  tk_error error{};
  const tk_status status = tk_session_open_memory(exact.data(), exact.size(), &options, &session, &error);
  if (status != TK_OK) {
    ++counts->refused;
    EXPECT(status == TK_BAD_MODEL || status == TK_UNSUPPORTED);
    EXPECT(session == nullptr && std::strlen(error.message) > 10);
    return;
  }
  ++counts->sound;
  if (is_the_usual_shape(session) && tk_session_arena_bytes(session, 2) < 1 << 22) {
    std::vector<float> pixels(2 * 32, 0.5f), scores(2 * 3);
    const tk_tensor in{pixels.data(), TK_FLOAT32, 4, {2, 2, 4, 4}}, out{scores.data(), TK_FLOAT32, 2, {2, 3}};
    const tk_status ran = tk_session_run(session, &in, 1, &out, 1, &error);
    EXPECT(ran == TK_OK || ran == TK_BAD_ARGUMENT);
  }
  tk_session_close(session);
}

void whole_file_is_sound(const std::string& file) {
  Counts counts;
  open_and_run(file, &counts);
  EXPECT(counts.sound == 1);
}

void every_truncation(const std::string& file) {
  Counts counts;
  for (size_t length = 0; length < file.size(); ++length) open_and_run(file.substr(0, length), &counts);
  EXPECT(counts.refused > static_cast<int>(file.size()) - 60);  // versions and metadata stand at the end
}

void every_byte_replaced(std::string file) {
  Counts counts;
  for (size_t at = 0; at < file.size(); ++at) {
    const char kept = file[at];
    for (int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      file[at] = static_cast<char>(value);
      open_and_run(file, &counts);
    }
    file[at] = kept;
  }
  EXPECT(counts.refused > counts.sound / 4 && counts.sound > 0);
}

std::string mutated(const std::string& file, Random* random) {
  std::string result = file;
  for (size_t i = 0, edits = 1 + random->below(4); i < edits && !result.empty(); ++i) {
    const size_t at = random->below(result.size()), length = 1 + random->below(12);
    switch (random->below(5)) {
      case 0: result[at] = static_cast<char>(result[at] ^ (1 << random->below(8))); break;
      case 1: result.erase(at, length); break;
      case 2: result.insert(at, result.substr(random->below(result.size()), length)); break;
      case 3: result.insert(at, std::string(length, '\xff')); break;
      default: result.replace(at, 1, tritkit_test::varint(random->next() >> random->below(64))); break;
    }
  }
  return result;
}

void random_mutations(const std::string& file) {
  Random random;
  Counts counts;
  for (int i = 0; i < 5000; ++i) open_and_run(mutated(file, &random), &counts);
  EXPECT(counts.refused > 2000);
}

void deep_nesting_does_not_recurse() {
  std::string graph;
  for (int depth = 0; depth < 2000; ++depth) graph = tritkit_test::bytes(1, tritkit_test::bytes(5, tritkit_test::bytes(6, graph)));
  Counts counts;
  open_and_run(tritkit_test::model(graph), &counts);
  EXPECT(counts.refused == 1);
}

}  // namespace

int main() {
  for (const std::string& file : {small_model(), group_model()}) {
    whole_file_is_sound(file);
    every_truncation(file);
    every_byte_replaced(file);
    random_mutations(file);
  }
  deep_nesting_does_not_recurse();
  return tritkit_test::report("reader_test");
}
